package ecs

import (
	"strings"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

// Class says what to do about an error.
type Class string

const (
	// Gone means that there is no such image: confirm it, then let the object go.
	Gone Class = "gone"
	// Waiting means that ECS works on the image and will be done by itself.
	Waiting Class = "waiting"
	// Blocked means that somebody has to change something about the image.
	Blocked Class = "blocked"
	// Denied means that somebody has to change the key or its permissions.
	Denied Class = "denied"
	// Invalid means that somebody has to change the object.
	Invalid Class = "invalid"
	// Throttled means that the request quota is used up until it is renewed.
	Throttled Class = "throttled"
	// Transient means that the call may succeed the next time. Codes that nobody knows are transient.
	Transient Class = "transient"
)

// Meaning says what one error code means. The whole list of them is Meanings.
type Meaning struct {
	// Code is the code as ECS spells it. A * at its beginning or end stands for any text.
	Code string
	// HTTP lists the statuses that the code is documented with, for readers: decisions are made on Code alone.
	HTTP string
	// Class says what to do.
	Class Class
	// Condition is the condition of a CustomImage that is True while ECS reports the code; "" if there is none.
	Condition string
	// Advice tells a user in full sentences what to do. In it {origin} stands for where the access key came from,
	// {action} for the RAM action that was refused, {operator} for the operator's service account, and {namespace}
	// and {secret} for those of the object.
	Advice string
}

const (
	adviceWait = "It goes by itself once "
	adviceKey  = "Put a valid access key into {origin}."
)

// Meanings is the one table of what errors mean. The reconciler, the tests and the documentation are made
// from it. The first row that matches a code counts.
var Meanings = []Meaning{
	{"ImageUsingByInstance", "403", Blocked, v1alpha1.ConditionInUse,
		"Release the instances that use the image, and it goes by itself; or set spec.force to delete it all the same."},
	{"ImageUseShared", "403", Blocked, v1alpha1.ConditionShared,
		"Stop sharing it with other accounts (ModifyImageSharePermission), and it goes by itself; spec.force does not help."},
	{"ImageIsPublic", "403", Blocked, v1alpha1.ConditionPublic,
		"Make it private (ModifyImageSharePermission with IsPublic=false), and it goes by itself; spec.force does not help."},
	{"OperationDenied.ImageCopying", "403", Waiting, v1alpha1.ConditionCopying,
		adviceWait + "the copy has ended; CancelCopyImage ends it now."},
	{"ImageIsImporting", "403", Waiting, v1alpha1.ConditionImporting,
		adviceWait + "the import has ended; CancelTask ends it now."},
	{"ImageIsExporting", "403", Waiting, v1alpha1.ConditionExporting,
		adviceWait + "the export has ended; CancelTask ends it now."},
	{"ImageIsCreating", "403", Waiting, v1alpha1.ConditionCreating, adviceWait + "the image is complete."},
	{"*.ImageIsCreating", "403", Waiting, v1alpha1.ConditionCreating, adviceWait + "the image is complete."},
	{CodeImageNotFound, "404", Gone, v1alpha1.ConditionNotFound,
		"Check imageID, regionID and the account of the access key. While it is so, deleting this object deletes no image."},

	{v1alpha1.ReasonNoCredentials, "", Denied, v1alpha1.ConditionDenied,
		"Name a Secret in spec.credentialsSecretRef, or give the operator an identity of its own."},
	{v1alpha1.ReasonAmbientForbidden, "", Denied, v1alpha1.ConditionDenied,
		"Name a Secret with an access key in spec.credentialsSecretRef, or add the namespace to the operator's " +
			"--ambient-namespaces."},
	{v1alpha1.ReasonSecretNotFound, "", Denied, v1alpha1.ConditionDenied,
		"Create it: `kubectl create secret generic {secret} -n {namespace} --from-literal=access-key-id=… " +
			"--from-literal=access-key-secret=…`."},
	{v1alpha1.ReasonSecretForbidden, "", Denied, v1alpha1.ConditionDenied,
		"Let it: `kubectl create rolebinding imagegc-credentials-reader -n {namespace} " +
			"--clusterrole=imagegc-credentials-reader {operator}`."},
	{v1alpha1.ReasonSecretInvalid, "", Denied, v1alpha1.ConditionDenied,
		"Put it right: `kubectl edit secret {secret} -n {namespace}`."},
	{v1alpha1.ReasonClusterForbidden, "", Denied, v1alpha1.ConditionDenied,
		"Install the operator's roles and admission policies again; they have to name the operator, {operator}."},
	{"InvalidAccessKeyId.NotFound", "404, 400", Denied, v1alpha1.ConditionDenied, adviceKey},
	{"InvalidAccessKeyId.Inactive", "400", Denied, v1alpha1.ConditionDenied,
		"Enable the access key in RAM, or put another one into {origin}."},
	{"SignatureDoesNotMatch", "400", Denied, v1alpha1.ConditionDenied,
		"The secret does not belong to the access key. " + adviceKey},
	{"IncompleteSignature", "400", Denied, v1alpha1.ConditionDenied, adviceKey},
	{"InvalidTimeStamp.Expired", "400", Denied, v1alpha1.ConditionDenied,
		"Set the clock of the operator's node: it is off by more than 15 minutes."},
	{"InvalidSecurityToken.*", "400, 403", Denied, v1alpha1.ConditionDenied,
		"The temporary access key from {origin} has ended, or its token is not the one that came with it: replace it."},
	{"MissingSecurityToken", "400", Denied, v1alpha1.ConditionDenied,
		"The access key from {origin} is a temporary one: add its security-token."},
	{"Forbidden.*", "403", Denied, v1alpha1.ConditionDenied, adviceGrant},
	{"NoPermission", "403", Denied, v1alpha1.ConditionDenied, adviceTrust},
	{"NoPermisson", "403", Denied, v1alpha1.ConditionDenied, adviceTrust}, // sic
	{"AuthenticationFail.*", "401", Denied, v1alpha1.ConditionDenied,
		"Have the role trust the cluster's OIDC provider and the operator's service account."},
	{"EntityNotExist.*", "404", Denied, v1alpha1.ConditionDenied,
		"There is no such role or OIDC provider: check its ARN in the object's Secret or the operator's environment."},

	{"InvalidRegionId.NotFound", "404", Invalid, v1alpha1.ConditionInvalid,
		"There is no such region: set spec.deletionPolicy to Retain, delete this object, and create it anew " +
			"with the right regionID."},
	{"MissingParameter", "400", Invalid, v1alpha1.ConditionInvalid, adviceInvalid},
	{"InvalidParameter", "400", Invalid, v1alpha1.ConditionInvalid, adviceInvalid},
	{"InvalidParameter.*", "400", Invalid, v1alpha1.ConditionInvalid, adviceInvalid},
	{"InvalidAction.NotFound", "404", Invalid, v1alpha1.ConditionInvalid, adviceInvalid},
	{"InvalidVersion", "404", Invalid, v1alpha1.ConditionInvalid, adviceInvalid},

	{"Throttling", "400", Throttled, "", adviceThrottled},
	{"Throttling.*", "400", Throttled, "", adviceThrottled},
	{"Rejected.Throttling", "400", Throttled, "", adviceThrottled},

	{"ServiceUnavailable", "503", Transient, "", adviceRetried},
	{"ServiceUnavailable.*", "503", Transient, "", adviceRetried},
	{"InternalError", "500", Transient, "", adviceRetried},
	{"OperationConflict", "409", Transient, "", adviceRetried},
	{"SignatureNonceUsed", "400", Transient, "", adviceRetried},
	{CodeClusterError, "", Transient, "", "It is tried again; it is the cluster's API server that fails, and not ECS."},
	{openapi.CodeNoAnswer, "", Transient, "",
		"It is tried again; if that goes on, check spec.regionID and the network between the operator and ECS."},
	{openapi.CodeUnusableAnswer, "", Transient, "",
		"It is tried again; if that goes on, check the --ecs-endpoint flag, and proxies on the way."},
}

// CodeImageNotFound is the code that ECS answers with if there is no such image in the account and region.
const CodeImageNotFound = "InvalidImageId.NotFound"

// CodeClusterError stands for an answer of the cluster's API server that tells of a failure of its own.
const CodeClusterError = "ClusterError"

const (
	adviceGrant   = "Grant {action} to the RAM user or role behind {origin}."
	adviceTrust   = adviceGrant + " A role that is to be assumed has to trust it, with the external-id that it asks for."
	adviceInvalid = "Check spec, the Secret that it names, and the operator's flags. To let a deleted object go and " +
		"leave the image, annotate it with ecs.imagegc.io/release and its imageID."
	adviceThrottled = "It is tried again when the quota is renewed."
	adviceRetried   = "It is tried again."
)

// Lookup returns what a code means. A code that is not in the table is transient.
func Lookup(code string) Meaning {
	for _, meaning := range Meanings {
		if matches(meaning.Code, code) {
			return meaning
		}
	}
	return Meaning{Code: code, Class: Transient,
		Advice: "It is tried again. This code is not documented: if it stays, please report it."}
}

// Reason makes a condition's reason from an ECS code: the code without whatever a reason may not hold. A row of
// the table is explained on the page of that name in docs/reasons.
func Reason(code string) string {
	letters := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return -1
	}, code)
	return strings.TrimLeft(letters, "0123456789")
}

func matches(pattern, code string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(code, suffix)
	}
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(code, prefix)
	}
	return pattern == code
}
