package ecs

import (
	"strings"

	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// Class says what kind of failure an error code reports.
type Class string

const (
	// Gone means that there is no such image.
	Gone Class = "gone"
	// Waiting means that an operation on the image is running, and that the call may succeed when it has ended.
	Waiting Class = "waiting"
	// Blocked means that the call fails until the image or its use is changed.
	Blocked Class = "blocked"
	// Denied means that the call fails until the access key or its permissions are changed.
	Denied Class = "denied"
	// Invalid means that the call fails until its parameters are changed.
	Invalid Class = "invalid"
	// Throttled means that the request quota is used up until it is renewed.
	Throttled Class = "throttled"
	// Transient means that the call may succeed the next time. Codes that are not in the table are transient.
	Transient Class = "transient"
)

// Code is a row of the table of error codes.
type Code struct {
	// Pattern is the code as ECS spells it. A * at its beginning or end stands for any text.
	Pattern string
	// HTTP lists the statuses that the code is documented with. It is for readers: only the code decides.
	HTTP  string
	Class Class
	// Action is the operation that the row is about, as RAM policies name it; "" stands for all.
	Action string
}

// CodeImageNotFound is the code that ECS answers with if there is no such image in the account and region.
const CodeImageNotFound = "InvalidImageId.NotFound"

// deletion is the action that the obstacles of an image are about.
const deletion = "ecs:" + deleteImage

// Codes is the table of the error codes of ECS, of STS and of the gateway in front of them. The first row that
// matches counts.
var Codes = []Code{
	{"ImageUsingByInstance", "403", Blocked, deletion},
	{"ImageUseShared", "403", Blocked, deletion},
	{"ImageIsPublic", "403", Blocked, deletion},
	{"OperationDenied.ImageCopying", "403", Waiting, deletion},
	{"ImageIsImporting", "403", Waiting, deletion},
	{"ImageIsExporting", "403", Waiting, deletion},
	{"ImageIsCreating", "403", Waiting, deletion},
	{"*.ImageIsCreating", "403", Waiting, deletion},
	{CodeImageNotFound, "404", Gone, ""},

	{"InvalidAccessKeyId.NotFound", "404, 400", Denied, ""},
	{"InvalidAccessKeyId.Inactive", "400", Denied, ""},
	{"SignatureDoesNotMatch", "400", Denied, ""},
	{"IncompleteSignature", "400", Denied, ""},
	{"InvalidTimeStamp.Expired", "400", Denied, ""},
	{"InvalidSecurityToken.*", "400, 403", Denied, ""},
	{"MissingSecurityToken", "400", Denied, ""},
	{"Forbidden", "403", Denied, ""},
	{"Forbidden.*", "403", Denied, ""},
	{"NoPermission", "403", Denied, ""},
	{"NoPermisson", "403", Denied, ""}, // sic
	{"AuthenticationFail.*", "401", Denied, ""},
	{"EntityNotExist.*", "404", Denied, ""},

	{"InvalidRegionId.NotFound", "404", Invalid, ""},
	{failure.CodeEndpointNotFound, "", Invalid, ""},
	{"MissingParameter", "400", Invalid, ""},
	{"InvalidParameter", "400", Invalid, ""},
	{"InvalidParameter.*", "400", Invalid, ""},
	{"InvalidAction.NotFound", "404", Invalid, ""},
	{"InvalidVersion", "404", Invalid, ""},

	{"Throttling", "400", Throttled, ""},
	{"Throttling.*", "400", Throttled, ""},
	{"Rejected.Throttling", "400", Throttled, ""},

	{"ServiceUnavailable", "503", Transient, ""},
	{"ServiceUnavailable.*", "503", Transient, ""},
	{"InternalError", "500", Transient, ""},
	{"OperationConflict", "409", Transient, ""},
	{"SignatureNonceUsed", "400", Transient, ""},
	{failure.CodeNoAnswer, "", Transient, ""},
	{failure.CodeUnusableAnswer, "", Transient, ""},
}

// ClassOf returns the class of an error code that an action was answered with, such as ecs:DeleteImage. With the
// action "", the rows of all actions count.
func ClassOf(action, code string) Class {
	for _, row := range Codes {
		if row.Matches(action, code) {
			return row.Class
		}
	}
	return Transient
}

// Find returns the row of an error code, or of the pattern of a row, whatever its action.
func Find(code string) (Code, bool) {
	for _, row := range Codes {
		if row.Matches("", code) {
			return row, true
		}
	}
	return Code{}, false
}

// Matches reports whether the row is about an error code that an action was answered with. The action "" stands for
// all.
func (c Code) Matches(action, code string) bool {
	if action != "" && c.Action != "" && c.Action != action {
		return false
	}
	if suffix, ok := strings.CutPrefix(c.Pattern, "*"); ok {
		return strings.HasSuffix(code, suffix)
	}
	if prefix, ok := strings.CutSuffix(c.Pattern, "*"); ok {
		return strings.HasPrefix(code, prefix)
	}
	return c.Pattern == code
}
