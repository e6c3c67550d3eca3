package openapi

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"
)

// Endpoints says where the calls go.
type Endpoints struct {
	// Override is one URL for every product and region: a simulator, or a private gateway. Empty for Alibaba
	// Cloud's own endpoints.
	Override string
	// Products are URLs for single products, which outrank Override.
	Products map[string]string
	// VPC chooses the endpoints inside a virtual private cloud in place of the public ones.
	VPC bool
}

// WantEndpoint says what IsEndpoint takes.
const WantEndpoint = "https://HOST or http://HOST:PORT, without path or query"

// IsEndpoint reports whether Override and Products may hold a text: a URL that calls can be sent to, or nothing.
func IsEndpoint(text string) bool {
	u, err := url.Parse(text)
	return text == "" || err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") &&
		strings.Trim(u.Path, "/") == "" && !strings.ContainsAny(text, "?#") && u.User == nil
}

func (e Endpoints) url(call Call) string {
	override := cmp.Or(e.Products[call.Product], e.Override)
	switch {
	case override != "":
		return strings.TrimRight(override, "/")
	case e.VPC:
		return fmt.Sprintf("https://%s-vpc.%s.aliyuncs.com", call.Product, call.Region)
	case call.Central:
		return fmt.Sprintf("https://%s.aliyuncs.com", call.Product)
	case call.Region == "cn-hangzhou": // the first region there was, with a host name of its own form
		return fmt.Sprintf("https://%s-cn-hangzhou.aliyuncs.com", call.Product)
	default:
		return fmt.Sprintf("https://%s.%s.aliyuncs.com", call.Product, call.Region)
	}
}
