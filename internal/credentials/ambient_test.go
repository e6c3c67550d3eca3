package credentials

import (
	"testing"

	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

func TestFromEnvironment_returnsTheKeyOrNamesWhatIsMissing(t *testing.T) {
	for name, test := range map[string]struct {
		environment map[string]string
		want        openapi.Credentials
		missing     string
	}{
		"a key": {
			map[string]string{envAccessKeyID: "id", envAccessKeySecret: "secret"},
			openapi.Credentials{AccessKeyID: "id", AccessKeySecret: "secret"}, ""},
		"a temporary key": {
			map[string]string{envAccessKeyID: "id", envAccessKeySecret: "secret", envSecurityToken: "token"},
			openapi.Credentials{AccessKeyID: "id", AccessKeySecret: "secret", SecurityToken: "token"}, ""},
		"a key that was read from files": {
			map[string]string{envAccessKeyID: "id\n", envAccessKeySecret: "secret\n", envSecurityToken: "token\n"},
			openapi.Credentials{AccessKeyID: "id", AccessKeySecret: "secret", SecurityToken: "token"}, ""},
		"nothing":   {nil, openapi.Credentials{}, envAccessKeyID},
		"no secret": {map[string]string{envAccessKeyID: "id"}, openapi.Credentials{}, envAccessKeySecret},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, err := fromEnvironment(func(name string) string { return test.environment[name] })(t.Context())
			got.Origin = ""
			g.Expect(got).To(Equal(test.want))
			if test.missing == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(failure.CodeOf(err)).To(Equal(v1alpha1.ReasonNoCredentials))
			g.Expect(err).To(MatchError(ContainSubstring(test.missing)))
		})
	}
}

func TestSTSRegion(t *testing.T) {
	for name, test := range map[string]struct {
		environment map[string]string
		want        string
	}{
		"nothing":                    {nil, ""},
		"the region":                 {map[string]string{envRegionID: "cn-beijing"}, "cn-beijing"},
		"the region of STS":          {map[string]string{envSTSRegion: "cn-shanghai"}, "cn-shanghai"},
		"both, of which STS's count": {map[string]string{envRegionID: "cn-beijing", envSTSRegion: "cn-shanghai"}, "cn-shanghai"},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(STSRegion(func(name string) string { return test.environment[name] })).To(Equal(test.want))
		})
	}
}
