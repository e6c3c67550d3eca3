package failure_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

func TestCodeOf(t *testing.T) {
	refused := &failure.Error{Code: "ImageUseShared", Message: "No.", Cause: io.EOF}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"success":         {nil, ""},
		"a failure":       {refused, "ImageUseShared"},
		"a wrapped one":   {fmt.Errorf("delete image: %w", refused), "ImageUseShared"},
		"any other error": {io.EOF, "Other"},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(failure.CodeOf(test.err)).To(Equal(test.want))
		})
	}
	NewWithT(t).Expect(errors.Is(refused, io.EOF)).To(BeTrue(), "the cause is found")
}
