package ecs_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

func TestWhatTheCodesMean(t *testing.T) {
	for code, want := range map[string]struct {
		class     ecs.Class
		condition string
	}{
		"ImageUsingByInstance":                       {ecs.Blocked, "InUse"},
		"ImageUseShared":                             {ecs.Blocked, "Shared"},
		"ImageIsPublic":                              {ecs.Blocked, "Public"},
		"OperationDenied.ImageCopying":               {ecs.Waiting, "Copying"},
		"ImageIsImporting":                           {ecs.Waiting, "Importing"},
		"ImageIsExporting":                           {ecs.Waiting, "Exporting"},
		"ImageIsCreating":                            {ecs.Waiting, "Creating"},
		"OperationDenied.ImageIsCreating":            {ecs.Waiting, "Creating"},
		"InvalidImageId.NotFound":                    {ecs.Gone, "NotFound"},
		"InvalidAccessKeyId.NotFound":                {ecs.Denied, "Denied"},
		"InvalidAccessKeyId.Inactive":                {ecs.Denied, "Denied"},
		"SignatureDoesNotMatch":                      {ecs.Denied, "Denied"},
		"IncompleteSignature":                        {ecs.Denied, "Denied"},
		"InvalidTimeStamp.Expired":                   {ecs.Denied, "Denied"},
		"InvalidSecurityToken.Expired":               {ecs.Denied, "Denied"},
		"InvalidSecurityToken.MismatchWithAccessKey": {ecs.Denied, "Denied"},
		"Forbidden.RAM":                              {ecs.Denied, "Denied"},
		"Forbidden.SubUser":                          {ecs.Denied, "Denied"},
		"NoPermission":                               {ecs.Denied, "Denied"},
		"NoPermisson":                                {ecs.Denied, "Denied"},
		"AuthenticationFail.OIDCToken.Invalid":       {ecs.Denied, "Denied"},
		"EntityNotExist.Role":                        {ecs.Denied, "Denied"},
		v1alpha1.ReasonNoCredentials:                 {ecs.Denied, "Denied"},
		v1alpha1.ReasonAmbientForbidden:              {ecs.Denied, "Denied"},
		v1alpha1.ReasonSecretNotFound:                {ecs.Denied, "Denied"},
		v1alpha1.ReasonSecretForbidden:               {ecs.Denied, "Denied"},
		v1alpha1.ReasonSecretInvalid:                 {ecs.Denied, "Denied"},
		v1alpha1.ReasonClusterForbidden:              {ecs.Denied, "Denied"},
		"InvalidRegionId.NotFound":                   {ecs.Invalid, "Invalid"},
		"MissingParameter":                           {ecs.Invalid, "Invalid"},
		"InvalidParameter":                           {ecs.Invalid, "Invalid"},
		"InvalidAction.NotFound":                     {ecs.Invalid, "Invalid"},
		"InvalidVersion":                             {ecs.Invalid, "Invalid"},
		"Throttling":                                 {ecs.Throttled, ""},
		"Throttling.User":                            {ecs.Throttled, ""},
		"Throttling.Api":                             {ecs.Throttled, ""},
		"Rejected.Throttling":                        {ecs.Throttled, ""},
		"ServiceUnavailable":                         {ecs.Transient, ""},
		"ServiceUnavailable.Busy":                    {ecs.Transient, ""},
		"InternalError":                              {ecs.Transient, ""},
		"OperationConflict":                          {ecs.Transient, ""},
		"SignatureNonceUsed":                         {ecs.Transient, ""},
		openapi.CodeNoAnswer:                         {ecs.Transient, ""},
		openapi.CodeUnusableAnswer:                   {ecs.Transient, ""},
		"":                                           {ecs.Transient, ""},
		"SomethingNew":                               {ecs.Transient, ""},
		"InvalidImageId.NotFoundAtAll":               {ecs.Transient, ""},
		"InvalidFilterKey.NotFound":                  {ecs.Transient, ""},
	} {
		t.Run(code, func(t *testing.T) {
			g := NewWithT(t)
			meaning := ecs.Lookup(code)
			g.Expect(meaning.Class).To(Equal(want.class))
			g.Expect(meaning.Condition).To(Equal(want.condition))
		})
	}
}

func TestTheTableIsComplete(t *testing.T) {
	g := NewWithT(t)
	conditions := map[string]bool{}
	for _, meaning := range ecs.Meanings {
		g.Expect(meaning.Advice).To(HaveSuffix("."), "%s: advice is a full sentence", meaning.Code)
		if meaning.Class == ecs.Throttled || meaning.Class == ecs.Transient {
			g.Expect(meaning.Condition).To(BeEmpty(), meaning.Code)
		} else {
			g.Expect(v1alpha1.Obstacles).To(ContainElement(meaning.Condition), meaning.Code)
		}
		code := strings.Trim(meaning.Code, "*")
		g.Expect(slices.ContainsFunc(ecs.Meanings, func(other ecs.Meaning) bool {
			return other.Code != meaning.Code && strings.Trim(other.Code, "*") == code && other.Class != meaning.Class
		})).To(BeFalse(), "%s means one thing", code)
		conditions[meaning.Condition] = true
	}
	for _, obstacle := range v1alpha1.Obstacles {
		g.Expect(conditions).To(HaveKey(obstacle), "some code leads to each condition")
	}
}

// What the client closes its gate for and what the table calls throttled must be the same codes.
func TestEveryThrottledCodeClosesTheGate(t *testing.T) {
	for _, meaning := range ecs.Meanings {
		g := NewWithT(t)
		sim := simulator(t, ecssim.Image{ImageID: "m-bp1", RegionID: region})
		code := strings.Replace(meaning.Code, "*", "Example", 1)
		g.Expect(sim.AddFault(ecssim.Fault{Action: "DeleteImage", Code: code})).To(Succeed())
		client := clientOf(t, sim)
		_, err := client.DeleteImage(context.Background(), region, "m-bp1", false)
		g.Expect(err).To(HaveOccurred())
		_, again := client.DeleteImage(context.Background(), region, "m-bp1", false)
		if meaning.Class == ecs.Throttled {
			g.Expect(again).To(HaveOccurred(), code)
			g.Expect(sim.Calls()).To(HaveLen(1), code)
		} else {
			g.Expect(again).NotTo(HaveOccurred(), code)
		}
	}
}
