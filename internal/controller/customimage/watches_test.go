package customimage

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
)

func TestNeedsAttempt_passesWhatMakesADifference(t *testing.T) {
	base := &v1alpha1.CustomImage{ObjectMeta: metav1.ObjectMeta{
		UID: "a", Generation: 1, Finalizers: []string{v1alpha1.Finalizer}, Annotations: map[string]string{"other": "1"}}}
	for name, test := range map[string]struct {
		change func(*v1alpha1.CustomImage)
		passes bool
	}{
		"a change of the spec, or a deletion": {func(c *v1alpha1.CustomImage) { c.Generation++ }, true},
		"the retry annotation":                {func(c *v1alpha1.CustomImage) { c.Annotations[v1alpha1.AnnotationRetryAt] = "x" }, true},
		"the release annotation":              {func(c *v1alpha1.CustomImage) { c.Annotations[v1alpha1.AnnotationRelease] = "x" }, true},
		"the protecting annotation":           {func(c *v1alpha1.CustomImage) { c.Annotations[v1alpha1.AnnotationProtected] = "x" }, true},
		"the finalizers":                      {func(c *v1alpha1.CustomImage) { c.Finalizers = nil }, true},
		"another object of that name":         {func(c *v1alpha1.CustomImage) { c.UID = "b" }, true},
		"another annotation":                  {func(c *v1alpha1.CustomImage) { c.Annotations["other"] = "2" }, false},
		"a label":                             {func(c *v1alpha1.CustomImage) { c.Labels = map[string]string{"a": "b"} }, false},
		"the status":                          {func(c *v1alpha1.CustomImage) { c.Status.LastHandledRetryAt = "x" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			changed := base.DeepCopy()
			test.change(changed)
			got := New(Config{}).needsAttempt().Update(event.UpdateEvent{ObjectOld: base, ObjectNew: changed})
			NewWithT(t).Expect(got).To(Equal(test.passes))
		})
	}
}

func TestEnds_passesDeletionsOfWatchedNamespacesAndOfTheCRD(t *testing.T) {
	now := metav1.Now()
	for name, test := range map[string]struct {
		watched []string
		changed string
		deleted *metav1.Time
		passes  bool
	}{
		"a watched namespace":                   {[]string{"web", "db"}, "db", &now, true},
		"a namespace that is not watched":       {[]string{"web", "db"}, "other", &now, false},
		"any namespace if all are watched":      {nil, "other", &now, true},
		"the CRD":                               {[]string{"web"}, decision.CRDName, &now, true},
		"a namespace that is not being deleted": {[]string{"web"}, "web", nil, false},
		"the CRD while it is not being deleted": {nil, decision.CRDName, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			ends := New(Config{Namespaces: test.watched}).ends()
			before, after := namespaceNamed(test.changed), namespaceNamed(test.changed)
			after.DeletionTimestamp = test.deleted
			NewWithT(t).Expect(ends.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after})).To(Equal(test.passes))
			NewWithT(t).Expect(ends.Create(event.CreateEvent{Object: after})).To(Equal(test.passes), "when the operator starts")
		})
	}
}
