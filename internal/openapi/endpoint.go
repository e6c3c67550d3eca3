package openapi

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"
)

// Endpoints chooses the URL that a call is sent to.
type Endpoints struct {
	// Override is one URL for every product and region: a simulator, or a private gateway. Empty for Alibaba
	// Cloud's own endpoints.
	Override string
	// Products are URLs for single products. They take precedence over Override.
	Products map[string]string
	// VPC chooses the endpoints inside a virtual private cloud instead of the public ones.
	VPC bool
}

// WantEndpoint says what IsEndpoint takes.
const WantEndpoint = "https://HOST or http://HOST:PORT, without path or query"

// IsEndpoint reports whether a text is empty or a URL that calls can be sent to: a value for Override and Products.
func IsEndpoint(text string) bool {
	u, err := url.Parse(text)
	return text == "" || err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") &&
		strings.Trim(u.Path, "/") == "" && !strings.ContainsAny(text, "?#") && u.User == nil
}

// url returns the URL that a call is sent to, and whether its host name was made from the region.
func (e Endpoints) url(call Call) (target string, regional bool) {
	override := cmp.Or(e.Products[call.Product], e.Override)
	switch {
	case override != "":
		return strings.TrimRight(override, "/"), false
	case e.VPC:
		return fmt.Sprintf("https://%s-vpc.%s.aliyuncs.com", call.Product, call.Region), true
	case call.Central:
		return fmt.Sprintf("https://%s.aliyuncs.com", call.Product), false
	case call.Region == "cn-hangzhou": // the first region there was, with a host name of its own form
		return fmt.Sprintf("https://%s-cn-hangzhou.aliyuncs.com", call.Product), true
	default:
		return fmt.Sprintf("https://%s.%s.aliyuncs.com", call.Product, call.Region), true
	}
}
