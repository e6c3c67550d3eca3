package openapi

import (
	"fmt"
	"net/url"
	"strings"
)

// Endpoints says where the calls go.
type Endpoints struct {
	// Override is one URL for every product and region: a simulator, or a private gateway. Empty for Alibaba
	// Cloud's own endpoints.
	Override string
	// VPC chooses the endpoints inside a virtual private cloud in place of the public ones.
	VPC bool
}

// Validate returns an error if Override is no URL that a call could be sent to.
func (e Endpoints) Validate() error {
	if e.Override == "" {
		return nil
	}
	u, err := url.Parse(e.Override)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("%q is not an endpoint: want https://HOST or http://HOST:PORT, without path or query",
			e.Override)
	}
	return nil
}

func (e Endpoints) url(product, region string) string {
	switch {
	case e.Override != "":
		return strings.TrimRight(e.Override, "/")
	case e.VPC:
		return fmt.Sprintf("https://%s-vpc.%s.aliyuncs.com", product, region)
	case region == "cn-hangzhou": // the first region there was, with a host name of its own form
		return fmt.Sprintf("https://%s-cn-hangzhou.aliyuncs.com", product)
	default:
		return fmt.Sprintf("https://%s.%s.aliyuncs.com", product, region)
	}
}
