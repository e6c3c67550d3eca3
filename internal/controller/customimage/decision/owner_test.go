package decision

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

func TestOwnerOf_twoObjects(t *testing.T) {
	for name, test := range map[string]struct {
		change func(other, this *v1alpha1.CustomImage)
		owns   bool // the other one
	}{
		"the other one is older": {func(_, _ *v1alpha1.CustomImage) {}, true},
		"the other one is younger": {func(other, this *v1alpha1.CustomImage) {
			other.CreationTimestamp = metav1.NewTime(this.CreationTimestamp.Add(time.Second))
		}, false},
		"both are as old, and the other one comes first by its uid": {func(other, this *v1alpha1.CustomImage) {
			other.CreationTimestamp, this.UID = this.CreationTimestamp, "z"
		}, true},
		"both are as old, and the other one comes last by its uid": {func(other, this *v1alpha1.CustomImage) {
			other.CreationTimestamp, this.UID = this.CreationTimestamp, "a"
		}, false},
		"the other one never saw the image": {func(other, _ *v1alpha1.CustomImage) { other.Status.Image = nil }, false},
		"the other one saw it in an account that is not known": {func(other, _ *v1alpha1.CustomImage) {
			other.Status.Image.OwnerID = ""
		}, true},
		"the other one saw it in another account": {func(other, _ *v1alpha1.CustomImage) {
			other.Status.Image.OwnerID = thatAccount
		}, false},
		"the other one is in another region": {func(other, _ *v1alpha1.CustomImage) {
			other.Spec.RegionID, other.Status.Image.RegionID = "cn-shanghai", "cn-shanghai"
		}, false},
		"this one is older, and never saw the image": {func(other, this *v1alpha1.CustomImage) {
			this.Status.Image, this.CreationTimestamp = nil, metav1.NewTime(other.CreationTimestamp.Add(-time.Hour))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := ready()
			other := rival(func(*v1alpha1.CustomImage) {})
			f.Image.CreationTimestamp = metav1.NewTime(born.Add(time.Second))
			test.change(other, f.Image)
			f.Rivals = []*v1alpha1.CustomImage{other}
			if test.owns {
				NewWithT(t).Expect(ownerOf(f)).To(BeIdenticalTo(other))
			} else {
				NewWithT(t).Expect(ownerOf(f)).To(BeNil())
			}
		})
	}
}

func TestOwnerOf_theOldestOfSeveral(t *testing.T) {
	f, _ := ready()
	oldest := rival(olderBy(2 * time.Hour))
	f.Rivals = []*v1alpha1.CustomImage{rival(olderBy(time.Hour)), oldest, rival(olderBy(-time.Hour))}
	NewWithT(t).Expect(ownerOf(f)).To(BeIdenticalTo(oldest))
}
