package customimage

import (
	"testing"
	"unsafe"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

func fatImage() *v1alpha1.CustomImage {
	return &v1alpha1.CustomImage{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: string([]byte("web")), Name: "a", Labels: map[string]string{"team": "web"},
			Annotations:   map[string]string{v1alpha1.AnnotationProtected: "true", "example.com/note": "mine"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
			Finalizers:    []string{v1alpha1.Finalizer, "example.com/other"},
		},
		Status: v1alpha1.CustomImageStatus{
			Image:      &v1alpha1.ImageStatus{OwnerID: "1"},
			Conditions: []metav1.Condition{{Type: "Ready", Reason: "Available", Message: "All is well."}},
		},
	}
}

func TestSlim_leavesWhatDecides(t *testing.T) {
	g := NewWithT(t)
	want := fatImage()
	want.Labels, want.ManagedFields, want.Annotations = nil, nil, map[string]string{v1alpha1.AnnotationProtected: "true"}
	got, err := new(Texts).Slim(fatImage())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got).To(Equal(want))
	lost := cache.DeletedFinalStateUnknown{Key: "web/a"}
	g.Expect(new(Texts).Slim(lost)).To(Equal(lost))
}

func TestSlim_hasNoPatchTouchWhatIsMissing(t *testing.T) {
	g := NewWithT(t)
	slim, err := new(Texts).Slim(fatImage())
	g.Expect(err).NotTo(HaveOccurred())
	before := slim.(*v1alpha1.CustomImage)
	changed := before.DeepCopy()
	changed.Finalizers = []string{"example.com/other"}
	g.Expect(client.MergeFrom(before).Data(changed)).To(MatchJSON(`{"metadata":{"finalizers":["example.com/other"]}}`))
}

func TestSlim_keepsATextOfManyObjectsOnce(t *testing.T) {
	g := NewWithT(t)
	texts := &Texts{}
	one, _ := texts.Slim(fatImage())
	other, _ := texts.Slim(fatImage())
	of := func(object any) *byte { return unsafe.StringData(object.(*v1alpha1.CustomImage).Namespace) }
	g.Expect(of(one)).To(BeIdenticalTo(of(other)))
}
