package ecssim_test

import (
	"testing"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// FuzzScenario reads scenarios of any form. What New accepts can be served and changed.
func FuzzScenario(f *testing.F) {
	f.Add([]byte(fullScenario))
	f.Add([]byte("accessKeys: [{id: a, secret: b}]\nquotas: {DeleteImage: 0/0s}"))
	f.Add([]byte("accessKeys: [{id: a, secret: b}]\nimages: [{imageID: m-1, regionID: cn-hangzhou, copying: forever}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ecssim.ParseScenario(text)
		if err != nil {
			return
		}
		server, err := ecssim.New(s, nil)
		if err != nil {
			return
		}
		defer server.Close()
		for _, image := range server.Images() {
			if err := server.PutImage(image); err != nil {
				t.Errorf("an image that was accepted is refused: %v", err)
			}
		}
		if err := server.Configure(func(*ecssim.Scenario) {}); err != nil {
			t.Errorf("a scenario that was accepted is refused: %v", err)
		}
	})
}
