package customimage

import (
	"maps"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// Texts are those that many objects have, each of them once.
type Texts struct {
	mu    sync.Mutex
	known map[string]string
}

// manyTexts is how many texts are kept at most.
const manyTexts = 10000

// Slim takes from an object that goes into the cache what the operator never reads. Patches are made from two copies of
// the same object, so what is missing in both is left as it is.
func (t *Texts) Slim(object any) (any, error) {
	o, err := meta.Accessor(object)
	if err != nil { // a tombstone
		return object, nil
	}
	o.SetManagedFields(nil)
	image, ok := object.(*v1alpha1.CustomImage)
	if !ok {
		return object, nil
	}
	image.Labels = nil
	maps.DeleteFunc(image.Annotations, func(name, _ string) bool { return !strings.HasPrefix(name, v1alpha1.GroupVersion.Group+"/") })
	t.share(&image.Namespace, &image.Spec.RegionID, &image.Spec.AccountID, &image.Spec.CredentialsSecretRef.Name)
	for i := range image.Finalizers {
		t.share(&image.Finalizers[i])
	}
	for i := range image.Status.Conditions {
		c := &image.Status.Conditions[i]
		t.share(&c.Type, &c.Reason, &c.Message)
	}
	if seen := image.Status.Image; seen != nil {
		t.share(&seen.RegionID, &seen.Family, &seen.State, &seen.Usage, &seen.OwnerID)
		if seen.ImageID == image.Spec.ImageID {
			seen.ImageID = image.Spec.ImageID
		}
	}
	return image, nil
}

func (t *Texts) share(texts ...*string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil || len(t.known) >= manyTexts {
		t.known = map[string]string{}
	}
	for _, text := range texts {
		known, ok := t.known[*text]
		if !ok {
			known = strings.Clone(*text)
			t.known[known] = known
		}
		*text = known
	}
}
