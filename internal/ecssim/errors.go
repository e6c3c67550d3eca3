package ecssim

import "strings"

// failure is an error answer of ECS or of its gateway.
type failure struct {
	status        int
	code, message string
}

// failures are the error codes the simulator knows, with their HTTP status and message. In a message {} stands
// for what it is about.
var failures = map[string]struct {
	status  int
	message string
}{
	// DeleteImage
	"ImageUsingByInstance":         {403, "The specified image has been used to create instances."},
	"ImageUseShared":               {403, "The specified image has been shared to others."},
	"OperationDenied.ImageCopying": {403, "The Image is coping."},
	"ImageIsImporting":             {403, "The specified Image is importing."},
	"ImageIsExporting":             {403, "The specified Image is exporting. Please cancel task first."},
	"InvalidImageId.NotFound":      {404, "The specified ImageId does not exist."},
	"ImageIsPublic":                {403, "You can not delete public image, please modify it to private."},
	"ImageIsCreating":              {403, "The specified image is being created."},
	"InvalidRegionId.NotFound":     {404, "The specified RegionId does not exist."},

	// DescribeImages
	"InvalidImageOwnerAlias.ValueNotSupported": {400, "The specified ImageOwnerAlias is not supported."},
	"InvalidTagCount":                          {400, "The specified tags are beyond the permitted range."},
	"InvalidFilterKey.NotFound":                {404, "The specified filter key is not supported."},
	"InvalidFilterValue":                       {404, "The specified filter value is not valid."},
	"InvalidUsage":                             {404, "The specified Usage is neither instance nor none."},
	"DryRunOperation":                          {400, "Request validation has been passed with DryRun flag set."},

	// STS
	"NoPermission":                         {403, noPermission},
	"EntityNotExist.Role":                  {404, "The specified Role not exists."},
	"AuthenticationFail.NoPermission":      {401, "There is no permission."},
	"AuthenticationFail.OIDCToken.Invalid": {401, "The Jwt content is invalid that cannot be recognized."},
	"InvalidParameter.RoleSessionName":     {400, "The parameter RoleSessionName is wrongly formed."},
	"InvalidParameter.DurationSeconds":     {400, "The Min/Max value of DurationSeconds is 15min/12hr."},

	// The gateway
	"Throttling":             {400, "Request was denied due to request throttling."},
	"ServiceUnavailable":     {503, "The request has failed due to a temporary failure of the server."},
	"InternalError":          {500, "The request processing has failed due to some unknown error."},
	"OperationConflict":      {409, "The operation conflicts with another one on the same resource."},
	"MissingParameter":       {400, `The input parameter "{}" that is mandatory is not supplied.`},
	"InvalidParameter":       {400, `The specified parameter "{}" is not valid.`},
	"InvalidVersion":         {404, "Specified parameter Version is not valid."},
	"InvalidAction.NotFound": {404, "Specified api is not found, please check your url and method."},
	"SignatureNonceUsed":     {400, "Specified signature nonce was used already."},
	"SignatureDoesNotMatch": {400, "Specified signature is not matched with our calculation. " +
		"server string to sign is:{}"},
	"IncompleteSignature":      {400, "The request signature does not conform to the platform standards."},
	"InvalidTimeStamp.Expired": {400, "Specified time stamp or date value is expired."},

	"InvalidAccessKeyId.NotFound":                {404, "Specified access key is not found."},
	"InvalidAccessKeyId.Inactive":                {400, "Specified access key is disabled."},
	"InvalidSecurityToken.Expired":               {403, "Specified SecurityToken is expired."},
	"InvalidSecurityToken.MismatchWithAccessKey": {403, "Specified SecurityToken mismatch with the AccessKey."},
	"Forbidden.RAM":                              {403, "User not authorized to operate on the specified resource."},
}

const noPermission = "You are not authorized to do this action. You should be authorized by RAM."

// fail makes the failure of a code in the table.
func fail(code string, about ...string) *failure {
	known := failures[code]
	return &failure{known.status, code, strings.Replace(known.message, "{}", strings.Join(about, ""), 1)}
}
