package decision

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// Meaning says what one error code means for a CustomImage. The whole list of them is Meanings.
type Meaning struct {
	// Code is the row of package ecs, or one of the operator's own codes.
	ecs.Code
	// Condition is the condition that is True while the code is reported; "" for none.
	Condition string
	// Advice tells a user in full sentences what to do. In it {origin} stands for where the access key came from, {action}
	// for the RAM action that was refused, {keeping} for what a release does for the image, {operator} for the operator's
	// identity in the cluster, {wait} for how long it waits for a quota, and {name}, {namespace}, {secret} and {imageID} for
	// those of the object.
	Advice string
}

const (
	adviceUnblock  = ", and the image is deleted automatically."
	adviceWait     = "The image is deleted automatically when "
	adviceKey      = "Put a valid access key into {origin}."
	adviceGrant    = "Grant {action} to the RAM user or role behind {origin}."
	adviceTrust    = adviceGrant + " If it assumes a role, the trust policy of that role must allow it and match its external ID."
	adviceReleased = "To remove a deleted object{keeping}, run `kubectl annotate cimg {name} -n {namespace} " +
		"--overwrite ecs.imagegc.io/release={imageID}`."
	adviceInvalid   = "Check spec, the Secret that it names, and the operator's flags. " + adviceReleased
	adviceThrottled = "The operator retries when it is this object's turn, within {wait} of its first attempt."
	adviceRetried   = "The operator retries."
)

// Meanings is the one table of what errors mean. The reconciler, its tests and the documentation are made from it.
// The first row that matches a code counts.
var Meanings = []Meaning{
	{code("ImageUsingByInstance"), v1alpha1.ConditionInUse, "Release the instances that use the image" + adviceUnblock +
		" To delete it now, run `kubectl patch cimg {name} -n {namespace} --type=merge -p '{\"spec\":{\"force\":true}}'`."},
	{code("ImageUseShared"), v1alpha1.ConditionShared, "Stop sharing the image (ModifyImageSharePermission)" + adviceUnblock +
		" spec.force does not help."},
	{code("ImageIsPublic"), v1alpha1.ConditionPublic, "Make the image private (ModifyImageSharePermission with IsPublic=false)" +
		adviceUnblock + " spec.force does not help."},
	{code("OperationDenied.ImageCopying"), v1alpha1.ConditionCopying, adviceWait + "the copy ends. To end it now, call CancelCopyImage."},
	{code("ImageIsImporting"), v1alpha1.ConditionImporting, adviceWait + "the import ends. To end it now, call CancelTask."},
	{code("ImageIsExporting"), v1alpha1.ConditionExporting, adviceWait + "the export ends. To end it now, call CancelTask."},
	{code("ImageIsCreating"), v1alpha1.ConditionCreating, adviceWait + "its creation ends."},
	{code("*.ImageIsCreating"), v1alpha1.ConditionCreating, adviceWait + "its creation ends."},
	{code(ecs.CodeImageNotFound), v1alpha1.ConditionNotFound, "Check imageID, regionID and the account and permissions of the " +
		"access key. Until ECS shows the image, deleting this object does not delete any image."},

	{own(v1alpha1.ReasonNoCredentials, ecs.Denied), v1alpha1.ConditionDenied,
		"Name a Secret in spec.credentialsSecretRef, or give the operator an identity of its own (--credentials)."},
	{own(v1alpha1.ReasonAmbientForbidden, ecs.Denied), v1alpha1.ConditionDenied,
		"Name a Secret with an access key in spec.credentialsSecretRef, or add the namespace to the operator's " +
			"--ambient-namespaces."},
	{own(v1alpha1.ReasonSecretNotFound, ecs.Denied), v1alpha1.ConditionDenied,
		"To create it, run `kubectl create secret generic {secret} -n {namespace} --from-literal=access-key-id=… " +
			"--from-literal=access-key-secret=…`."},
	{own(v1alpha1.ReasonSecretForbidden, ecs.Denied), v1alpha1.ConditionDenied,
		"To grant access, run `kubectl create rolebinding imagegc-credentials-reader -n {namespace} " +
			"--clusterrole=imagegc-credentials-reader {operator}`."},
	{own(v1alpha1.ReasonSecretInvalid, ecs.Denied), v1alpha1.ConditionDenied,
		"To fix the Secret, run `kubectl edit secret {secret} -n {namespace}`."},
	{own(v1alpha1.ReasonClusterForbidden, ecs.Denied), v1alpha1.ConditionDenied,
		"Install the operator's roles and admission policies again. They must name the operator, {operator}."},
	{own(v1alpha1.ReasonClusterRejected, ecs.Invalid), v1alpha1.ConditionInvalid,
		"Check the admission policies and webhooks of the cluster, and that the CustomResourceDefinition has the version of " +
			"the operator."},
	{code("InvalidAccessKeyId.NotFound"), v1alpha1.ConditionDenied, adviceKey},
	{code("InvalidAccessKeyId.Inactive"), v1alpha1.ConditionDenied, "Enable the access key in RAM, or put another one into {origin}."},
	{code("SignatureDoesNotMatch"), v1alpha1.ConditionDenied, "The secret does not belong to the access key. " + adviceKey},
	{code("IncompleteSignature"), v1alpha1.ConditionDenied, adviceKey},
	{code("InvalidTimeStamp.Expired"), v1alpha1.ConditionDenied,
		"Set the clock of the operator's node: it is more than 15 minutes off."},
	{code("InvalidSecurityToken.*"), v1alpha1.ConditionDenied,
		"The temporary access key from {origin} has expired, or its token belongs to another key. Replace it."},
	{code("MissingSecurityToken"), v1alpha1.ConditionDenied,
		"The access key from {origin} is a temporary one. Add its security-token."},
	{code("Forbidden"), v1alpha1.ConditionDenied, adviceGrant},
	{code("Forbidden.*"), v1alpha1.ConditionDenied, adviceGrant},
	{code("NoPermission"), v1alpha1.ConditionDenied, adviceTrust},
	{code("NoPermisson"), v1alpha1.ConditionDenied, adviceTrust}, // sic
	{code("AuthenticationFail.*"), v1alpha1.ConditionDenied,
		"The trust policy of the role must allow the cluster's OIDC provider and the operator's service account."},
	{code("EntityNotExist.*"), v1alpha1.ConditionDenied,
		"Check the ARN of the role and of the OIDC provider, in the object's Secret or the operator's environment."},

	{code("InvalidRegionId.NotFound"), v1alpha1.ConditionInvalid, "Check spec.regionID. " + adviceOtherRegion},
	{code(failure.CodeEndpointNotFound), v1alpha1.ConditionInvalid,
		"Check spec.regionID and the operator's --network, or its --sts-region if the host is one of STS. " + adviceOtherRegion},
	{code("MissingParameter"), v1alpha1.ConditionInvalid, adviceInvalid},
	{code("InvalidParameter"), v1alpha1.ConditionInvalid, adviceInvalid},
	{code("InvalidParameter.*"), v1alpha1.ConditionInvalid, adviceInvalid},
	{code("InvalidAction.NotFound"), v1alpha1.ConditionInvalid, adviceInvalid},
	{code("InvalidVersion"), v1alpha1.ConditionInvalid, adviceInvalid},

	{code("Throttling"), "", adviceThrottled},
	{code("Throttling.*"), "", adviceThrottled},
	{code("Rejected.Throttling"), "", adviceThrottled},

	{code("ServiceUnavailable"), "", adviceRetried},
	{code("ServiceUnavailable.*"), "", adviceRetried},
	{code("InternalError"), "", adviceRetried},
	{code("OperationConflict"), "", adviceRetried},
	{code("SignatureNonceUsed"), "", adviceRetried},
	{own(codeClusterError, ecs.Transient), "", "The operator retries. The cluster's API server fails, not ECS."},
	{code(failure.CodeNoAnswer), "",
		"The operator retries. If this continues, check spec.regionID and the network between the operator and ECS."},
	{code(failure.CodeUnusableAnswer), "",
		"The operator retries. If this continues, check the --ecs-endpoint flag, and proxies in between."},
}

const adviceOtherRegion = "If the region does not exist, run `kubectl patch cimg {name} -n {namespace} --type=merge " +
	"-p '{\"spec\":{\"deletionPolicy\":\"Retain\"}}'`, delete this object, and create another one with the right regionID."

// codeClusterError stands for an answer of the cluster's API server that reports a failure of its own.
const codeClusterError = "ClusterError"

// code returns the row of package ecs for a pattern.
func code(pattern string) ecs.Code {
	row, _ := ecs.Find(pattern) // a test checks that all are found
	return row
}

// own returns the row for a code that no call is answered with.
func own(code string, class ecs.Class) ecs.Code { return ecs.Code{Pattern: code, Class: class} }

// MeaningOf returns what a code means as an answer to an action. A code that is not in the table is transient.
func MeaningOf(action, code string) Meaning {
	for _, meaning := range Meanings {
		if meaning.Matches(action, code) {
			return meaning
		}
	}
	return Meaning{Code: ecs.Code{Pattern: code, Class: ecs.ClassOf(action, code)},
		Advice: "The operator retries. This code is not documented: if it continues, please report it."}
}

// ReasonOf makes a condition's reason from a code: the code without what a reason must not hold. A row of the table
// is explained on the page of that name in docs/reasons.
func ReasonOf(code string) string {
	return strings.TrimLeft(notInReasons.ReplaceAllString(code, ""), "0123456789")
}

var notInReasons = regexp.MustCompile(`[^A-Za-z0-9]`)

// Page returns the name of the page in docs/reasons that explains the row.
func (m Meaning) Page() string { return ReasonOf(m.Pattern) }

// Explain makes the verdict for a failure, by the table.
func Explain(f Facts) Verdict {
	e := f.Failure
	meaning := MeaningOf(e.Action, e.Code)
	r := Report{
		Summary:  v1alpha1.ConditionStalled,
		Reason:   ReasonOf(e.Code),
		Page:     meaning.Page(),
		Message:  fmt.Sprintf("%s: %s%s %s", e.Code, e.Message, f.Blockers, fillIn(meaning.Advice, f)),
		Obstacle: meaning.Condition,
		Others:   Unobserved,
		Err:      e,
		Keep:     f.Unnamed,
	}
	switch meaning.Class {
	case ecs.Waiting:
		r.Summary, r.Others = v1alpha1.ConditionReconciling, Cleared
	case ecs.Blocked, ecs.Gone:
		r.Others = Cleared
	case ecs.Throttled:
		r.Summary, r.Reason, r.Page = v1alpha1.ConditionReconciling, v1alpha1.ReasonThrottled, v1alpha1.ReasonThrottled
		return Retry{Report: r, Throttled: true}
	case ecs.Transient:
		r.Summary, r.Reason, r.Page = v1alpha1.ConditionReconciling, v1alpha1.ReasonRetrying, v1alpha1.ReasonRetrying
		return Retry{Report: r}
	}
	return r
}

// fillIn puts into an advice what the table cannot know.
func fillIn(advice string, f Facts) string {
	return strings.NewReplacer(
		"{keeping}", keeping(f),
		"{action}", f.Failure.Action,
		"{origin}", f.Failure.Origin,
		"{operator}", f.Operator,
		"{wait}", roundUp(f.Waited+f.Failure.Wait),
		"{name}", f.Image.Name,
		"{namespace}", f.Image.Namespace,
		"{secret}", f.Image.Spec.CredentialsSecretRef.Name,
		"{imageID}", f.Image.Spec.ImageID,
	).Replace(advice)
}

// roundUp says how long a wait is at most, in few steps: what changes with each attempt would have to be written again.
func roundUp(wait time.Duration) string {
	for _, step := range []struct {
		wait time.Duration
		text string
	}{
		{2 * time.Minute, "2 minutes"}, {5 * time.Minute, "5 minutes"}, {15 * time.Minute, "15 minutes"}, {time.Hour, "1 hour"},
		{3 * time.Hour, "3 hours"}, {6 * time.Hour, "6 hours"}, {12 * time.Hour, "12 hours"}, {24 * time.Hour, "1 day"},
	} {
		if wait <= step.wait {
			return step.text
		}
	}
	return fmt.Sprintf("%.0f days", math.Ceil(wait.Hours()/24))
}

// IsUnanswered reports whether a call that failed so may have taken effect.
func IsUnanswered(e *failure.Error) bool {
	if e == nil {
		return false
	}
	var connection *net.OpError
	if errors.As(e.Cause, &connection) && connection.Op == "dial" {
		return false // nothing was sent
	}
	unanswered := e.Code == failure.CodeNoAnswer || e.Code == failure.CodeUnusableAnswer
	return unanswered || e.HTTPStatus >= http.StatusInternalServerError
}

// Judges reports whether an answer is about the image as it is, so that no earlier call has deleted it.
func Judges(e *failure.Error) bool {
	if e == nil {
		return false
	}
	class := MeaningOf(e.Action, e.Code).Class
	return class == ecs.Waiting || class == ecs.Blocked
}

// FailureOf returns what a status can say about an error: of ECS, of the search for a key, or an answer of the API
// server that can last. It returns nil for any other error: the object changed, or the manager stops.
func FailureOf(err error) *failure.Error {
	var e *failure.Error
	if errors.As(err, &e) {
		return e
	}
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return nil
	}
	code := codeClusterError
	switch answer.Status().Code {
	case http.StatusConflict, http.StatusNotFound:
		return nil
	case http.StatusUnauthorized, http.StatusForbidden:
		code = v1alpha1.ReasonClusterForbidden
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		code = v1alpha1.ReasonClusterRejected
	}
	return &failure.Error{Code: code, Message: Clip(err.Error(), 1024) + "."}
}
