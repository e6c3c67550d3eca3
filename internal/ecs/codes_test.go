package ecs_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

func TestClassOf(t *testing.T) {
	for code, want := range map[string]ecs.Class{
		"ImageUsingByInstance":                       ecs.Blocked,
		"ImageUseShared":                             ecs.Blocked,
		"ImageIsPublic":                              ecs.Blocked,
		"OperationDenied.ImageCopying":               ecs.Waiting,
		"ImageIsImporting":                           ecs.Waiting,
		"ImageIsExporting":                           ecs.Waiting,
		"ImageIsCreating":                            ecs.Waiting,
		"OperationDenied.ImageIsCreating":            ecs.Waiting,
		"InvalidImageId.NotFound":                    ecs.Gone,
		"InvalidAccessKeyId.NotFound":                ecs.Denied,
		"InvalidAccessKeyId.Inactive":                ecs.Denied,
		"SignatureDoesNotMatch":                      ecs.Denied,
		"IncompleteSignature":                        ecs.Denied,
		"InvalidTimeStamp.Expired":                   ecs.Denied,
		"InvalidSecurityToken.Expired":               ecs.Denied,
		"InvalidSecurityToken.MismatchWithAccessKey": ecs.Denied,
		"MissingSecurityToken":                       ecs.Denied,
		"Forbidden":                                  ecs.Denied,
		"Forbidden.RAM":                              ecs.Denied,
		"Forbidden.SubUser":                          ecs.Denied,
		"NoPermission":                               ecs.Denied,
		"NoPermisson":                                ecs.Denied,
		"AuthenticationFail.OIDCToken.Invalid":       ecs.Denied,
		"EntityNotExist.Role":                        ecs.Denied,
		"InvalidRegionId.NotFound":                   ecs.Invalid,
		failure.CodeEndpointNotFound:                 ecs.Invalid,
		"MissingParameter":                           ecs.Invalid,
		"InvalidParameter":                           ecs.Invalid,
		"InvalidParameter.RoleSessionName":           ecs.Invalid,
		"InvalidAction.NotFound":                     ecs.Invalid,
		"InvalidVersion":                             ecs.Invalid,
		"Throttling":                                 ecs.Throttled,
		"Throttling.User":                            ecs.Throttled,
		"Throttling.Api":                             ecs.Throttled,
		"Rejected.Throttling":                        ecs.Throttled,
		"ServiceUnavailable":                         ecs.Transient,
		"ServiceUnavailable.Busy":                    ecs.Transient,
		"InternalError":                              ecs.Transient,
		"OperationConflict":                          ecs.Transient,
		"SignatureNonceUsed":                         ecs.Transient,
		failure.CodeNoAnswer:                         ecs.Transient,
		failure.CodeUnusableAnswer:                   ecs.Transient,
		"":                                           ecs.Transient,
		"SomethingNew":                               ecs.Transient,
		"ForbiddenFruit":                             ecs.Transient,
		"InvalidImageId.NotFoundAtAll":               ecs.Transient,
		"InvalidFilterKey.NotFound":                  ecs.Transient,
	} {
		t.Run(code, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(ecs.ClassOf("ecs:DeleteImage", code)).To(Equal(want))
			g.Expect(ecs.ClassOf("", code)).To(Equal(want), "of any action")
		})
	}
}

func TestClassOf_knowsTheObstaclesOfAnImageForDeleteImageOnly(t *testing.T) {
	for _, row := range ecs.Codes {
		t.Run(row.Pattern, func(t *testing.T) {
			g := NewWithT(t)
			code := strings.Replace(row.Pattern, "*", "Example", 1)
			switch class := ecs.ClassOf("ecs:DescribeImages", code); row.Class {
			case ecs.Blocked, ecs.Waiting:
				g.Expect(row.Action).To(Equal("ecs:DeleteImage"))
				g.Expect(class).To(Equal(ecs.Transient))
			default:
				g.Expect(row.Action).To(BeEmpty())
				g.Expect(class).To(Equal(row.Class))
			}
		})
	}
}

func TestFind(t *testing.T) {
	for _, row := range ecs.Codes {
		t.Run(row.Pattern, func(t *testing.T) {
			g := NewWithT(t)
			for _, code := range []string{row.Pattern, strings.Replace(row.Pattern, "*", "Example", 1)} {
				found, ok := ecs.Find(code)
				g.Expect(ok).To(BeTrue())
				g.Expect(found).To(Equal(row), "no row hides another")
			}
		})
	}
	_, ok := ecs.Find("SomethingNew")
	NewWithT(t).Expect(ok).To(BeFalse())
}

// The codes for which the client closes its gate and those that the table calls throttled must be the same.
func TestCodes_thatAreThrottledCloseTheGate(t *testing.T) {
	for _, row := range ecs.Codes {
		t.Run(row.Pattern, func(t *testing.T) {
			g := NewWithT(t)
			sim := simulator(t, ecssim.Image{ImageID: "m-bp1", RegionID: region})
			code := strings.Replace(row.Pattern, "*", "Example", 1)
			g.Expect(sim.AddFault(ecssim.Fault{Action: "DeleteImage", Code: code})).To(Succeed())
			client := clientOf(t, sim)
			_, err := client.DeleteImage(t.Context(), region, "m-bp1", false)
			g.Expect(failure.CodeOf(err)).To(Equal(code))
			_, again := client.DeleteImage(t.Context(), region, "m-bp1", false)
			if row.Class == ecs.Throttled {
				g.Expect(again).To(HaveOccurred())
				g.Expect(sim.Calls()).To(HaveLen(1))
			} else {
				g.Expect(again).NotTo(HaveOccurred())
			}
		})
	}
}
