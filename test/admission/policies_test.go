package admission

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// request is one of the requests that come to the same.
type request struct {
	name string
	send func(ctx context.Context, user client.Client, object *unstructured.Unstructured) error
}

func patch(kind types.PatchType, body string) func(context.Context, client.Client, *unstructured.Unstructured) error {
	return func(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
		return user.Patch(ctx, object, client.RawPatch(kind, []byte(body)))
	}
}

// again is the same object as a manifest with a change in it: what people keep in files.
func again(object *unstructured.Unstructured, change func(*unstructured.Unstructured)) *unstructured.Unstructured {
	o := manifest(field("imageID", imageID(object)))
	o.SetNamespace(object.GetNamespace())
	o.SetName(object.GetName())
	o.SetFinalizers(object.GetFinalizers())
	change(o)
	return o
}

func forced(o *unstructured.Unstructured)   { o.Object["spec"].(map[string]any)["force"] = true }
func released(o *unstructured.Unstructured) { o.SetFinalizers(nil) }

var (
	mergeForce  = patch(types.MergePatchType, `{"spec":{"force":true}}`)
	mergeLabel  = patch(types.MergePatchType, `{"metadata":{"labels":{"team":"web"}}}`)
	mergeRemove = patch(types.MergePatchType, `{"metadata":{"finalizers":null}}`)
)

var waysToForce = []request{
	{"creating", func(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
		o := again(object, forced)
		o.SetName("new-" + rand.String(5))
		return user.Create(ctx, o)
	}},
	{"creating under a generated name", creatingUnnamed},
	{"applying a new object", func(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
		o := again(object, forced)
		o.SetName("new-" + rand.String(5))
		return apply(ctx, user, o)
	}},
	{"applying", func(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
		return apply(ctx, user, again(object, forced))
	}},
	{"replacing", func(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
		o := again(object, forced)
		o.SetResourceVersion(object.GetResourceVersion())
		return user.Update(ctx, o)
	}},
	{"a merge patch", mergeForce},
	{"a JSON patch", patch(types.JSONPatchType, `[{"op":"replace","path":"/spec/force","value":true}]`)},
}

func creatingUnnamed(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
	o := again(object, forced)
	o.SetName("")
	return user.Create(ctx, o)
}

// beForced matches objects of which one forces.
func beForced() OmegaMatcher {
	return ContainElement(HaveField("Object", HaveKeyWithValue("spec", HaveKeyWithValue("force", true))))
}

var _ = Describe("spec.force", func() {
	for _, way := range waysToForce {
		It("is turned on by "+way.name+" with the verb force, and not without", func(ctx SpecContext) {
			object := live(ctx)
			Expect(way.send(ctx, as(editor), object.DeepCopy())).To(beDeniedBy("force"))
			Expect(stored(ctx, object)).NotTo(beForced())
			Expect(way.send(ctx, as(forcer), object.DeepCopy())).To(Succeed())
			Expect(stored(ctx, object)).To(beForced())
		})
	}

	DescribeTable("is not turned on by", func(ctx SpecContext, user string) {
		object := live(ctx)
		Expect(mergeForce(ctx, as(user), object)).To(beDeniedBy("force"))
		Expect(stored(ctx, object)).NotTo(beForced())
	},
		Entry("one who may delete the object", administrator),
		Entry("one who may take the finalizer off", releaser),
		Entry("the operator", operator),
	)

	It("is turned on by a cluster administrator", func(ctx SpecContext) {
		Expect(mergeForce(ctx, as(clusterAdmin), live(ctx))).To(Succeed())
	})

	It("is turned on for the object alone that a Role names, not for one without a name", func(ctx SpecContext) {
		mine, another, user := live(ctx), live(ctx), newcomer(ctx)
		kubectl(ctx, "create", "role", "one", "-n", team, "--verb=force", "--resource=customimages.ecs.imagegc.io",
			"--resource-name="+mine.GetName())
		kubectl(ctx, "create", "rolebinding", "one", "-n", team, "--role=one", "--user="+user)
		Eventually(mergeForce).WithArguments(ctx, as(user), mine).Should(Succeed())
		Expect(mergeForce(ctx, as(user), another)).To(beDeniedBy("force"))
		Expect(creatingUnnamed(ctx, as(user), another)).To(beDeniedBy("force"))
	})

	It("is not turned on in another namespace than the one in which the role is bound", func(ctx SpecContext) {
		object := live(ctx, in(metav1.NamespaceDefault))
		kubectl(ctx, "create", "rolebinding", "forcer-edits", "-n", "default",
			"--clusterrole=imagegc-customimage-editor", "--user="+forcer)
		Eventually(mergeLabel).WithArguments(ctx, as(forcer), object).Should(Succeed())
		Expect(mergeForce(ctx, as(forcer), object)).To(beDeniedBy("force"))
	})

	It("stays on through the changes of those who may not turn it on", func(ctx SpecContext) {
		object := live(ctx, forced)
		Expect(mergeLabel(ctx, as(editor), object)).To(Succeed())
		Expect(mergeForce(ctx, as(editor), object)).To(Succeed())
		Expect(apply(ctx, as(editor), again(object, forced))).To(Succeed())
		Expect(mergeRemove(ctx, as(operator), object)).To(Succeed())
		Expect(stored(ctx, object)).To(beForced())
	})

	It("is turned off by an editor, and then on no more", func(ctx SpecContext) {
		object := live(ctx, forced)
		Expect(patch(types.MergePatchType, `{"spec":{"force":null}}`)(ctx, as(editor), object)).To(Succeed())
		Expect(mergeForce(ctx, as(editor), object)).To(beDeniedBy("force"))
		Expect(stored(ctx, object)).NotTo(beForced())
	})

	It("tells a newcomer whom it refuses the command that helps", func(ctx SpecContext) {
		object, newcomer := live(ctx), newcomer(ctx)
		refusal := mergeForce(ctx, as(newcomer), object.DeepCopy())
		Expect(refusal).To(beDeniedBy("force"))
		follow(ctx, refusal, 0)
		Eventually(mergeForce).WithArguments(ctx, as(newcomer), object).Should(Succeed())
	})
})

var waysToRelease = []request{
	{"a merge patch", mergeRemove},
	{"a merge patch with an empty list", patch(types.MergePatchType, `{"metadata":{"finalizers":[]}}`)},
	{"a JSON patch", patch(types.JSONPatchType, `[{"op":"remove","path":"/metadata/finalizers/0"}]`)},
	{"a finalizer that differs in case",
		patch(types.MergePatchType, `{"metadata":{"finalizers":["ecs.imagegc.io/Delete-Image"]}}`)},
	{"replacing", func(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
		o := again(object, released)
		o.SetResourceVersion(object.GetResourceVersion())
		return user.Update(ctx, o)
	}},
	{"applying less", func(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
		return apply(ctx, user, again(object, released))
	}},
}

// beHeld matches the one object that our finalizer is on.
func beHeld() OmegaMatcher {
	return ConsistOf(WithTransform(func(o unstructured.Unstructured) []string { return o.GetFinalizers() },
		ContainElement(v1alpha1.Finalizer)))
}

var _ = Describe("The finalizer", func() {
	for _, way := range waysToRelease {
		It("is taken off by "+way.name+" with the verb release, and not without", func(ctx SpecContext) {
			object := live(ctx)
			Expect(way.send(ctx, as(editor), object.DeepCopy())).To(beDeniedBy("finalizer"))
			Expect(stored(ctx, object)).To(beHeld())
			Expect(way.send(ctx, as(releaser), object.DeepCopy())).To(Succeed())
			Expect(stored(ctx, object)).NotTo(beHeld())
		})
	}

	DescribeTable("is not taken off an object that is being deleted by", func(ctx SpecContext, user string) {
		object := live(ctx)
		Expect(admin.Delete(ctx, object)).To(Succeed())
		Expect(mergeRemove(ctx, as(user), object)).To(beDeniedBy("finalizer"))
		Expect(stored(ctx, object)).To(beHeld())
	},
		Entry("an editor", editor),
		Entry("one who may delete it", administrator),
		Entry("one who may force it", forcer),
		Entry("another service account of the operator's namespace", neighbour),
		Entry("the garbage collector", garbageCollector),
	)

	DescribeTable("is taken off an object that is being deleted by", func(ctx SpecContext, user string) {
		object := live(ctx)
		Expect(admin.Delete(ctx, object)).To(Succeed())
		Expect(mergeRemove(ctx, as(user), object)).To(Succeed())
		Expect(stored(ctx, object)).To(BeEmpty())
	},
		Entry("the operator", operator),
		Entry("one who may release", releaser),
		Entry("a cluster administrator", clusterAdmin),
	)

	It("stays on through the other changes of an editor", func(ctx SpecContext) {
		object := live(ctx, func(o *unstructured.Unstructured) {
			o.SetFinalizers([]string{"example.com/backup", v1alpha1.Finalizer})
		})
		Expect(mergeLabel(ctx, as(editor), object)).To(Succeed())
		Expect(waysToRelease[2].send(ctx, as(editor), object)).To(Succeed())
		Expect(object.GetFinalizers()).To(Equal([]string{v1alpha1.Finalizer}))
	})

	It("and force are out of reach for a request about the status", func(ctx SpecContext) {
		object := live(ctx)
		body := `{"metadata":{"finalizers":null},"spec":{"force":true},"status":{"observedGeneration":1}}`
		Expect(as(operator).Status().Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(body)))).To(Succeed())
		Expect(stored(ctx, object)).To(And(beHeld(), Not(beForced())))
	})

	It("tells a newcomer whom it refuses the commands that help", func(ctx SpecContext) {
		object, newcomer := live(ctx), newcomer(ctx)
		refusal := mergeRemove(ctx, as(newcomer), object.DeepCopy())
		Expect(refusal).To(beDeniedBy("finalizer"))
		follow(ctx, refusal, 1)
		Expect(stored(ctx, object)[0].GetAnnotations()).To(HaveKeyWithValue(v1alpha1.AnnotationRelease, imageID(object)))
		follow(ctx, refusal, 0)
		Eventually(mergeRemove).WithArguments(ctx, as(newcomer), object).Should(Succeed())
	})
})

func protected(value string) func(*unstructured.Unstructured) {
	return func(o *unstructured.Unstructured) {
		o.SetAnnotations(map[string]string{v1alpha1.AnnotationProtected: value})
	}
}

func in(namespace string) func(*unstructured.Unstructured) {
	return func(o *unstructured.Unstructured) { o.SetNamespace(namespace) }
}

// beUntouched matches the one object that nobody is deleting.
func beUntouched() OmegaMatcher {
	deleted := func(o unstructured.Unstructured) *metav1.Time { return o.GetDeletionTimestamp() }
	return ConsistOf(WithTransform(deleted, BeNil()))
}

// ending returns a protected object in a namespace that is being deleted: no controller runs here to finish that.
func ending(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "ending-"}}
	Expect(admin.Create(ctx, namespace)).To(Succeed())
	object := live(ctx, protected("true"), in(namespace.Name))
	Expect(admin.Delete(ctx, namespace)).To(Succeed())
	return object
}

var _ = Describe("A protected CustomImage", func() {
	DescribeTable("is not deleted by", func(ctx SpecContext, user string, options ...client.DeleteOption) {
		object := live(ctx, protected("true"))
		refusal := as(user).Delete(ctx, object, options...)
		Expect(refusal).To(And(beDeniedBy("protected"), MatchError(ContainSubstring(imageID(object)))))
		Expect(stored(ctx, object)).To(beUntouched())
	},
		Entry("one who may delete others", administrator),
		Entry("a cluster administrator", clusterAdmin),
		Entry("a cluster administrator who is in a hurry", clusterAdmin, client.GracePeriodSeconds(0)),
		Entry("one who deletes what it owns first", administrator,
			client.PropagationPolicy(metav1.DeletePropagationForeground)),
		Entry("one who leaves what it owns", administrator,
			client.PropagationPolicy(metav1.DeletePropagationOrphan)),
		Entry("the operator's neighbour", neighbour),
		Entry("the garbage collector", garbageCollector),
		Entry("the one identity of all controllers", allControllers),
	)

	It("stays when a collection is deleted, and is named", func(ctx SpecContext) {
		object, another := live(ctx, protected("true")), live(ctx)
		namespace := client.InNamespace(team)
		named := func(o client.Object) client.MatchingFields {
			return client.MatchingFields{"metadata.name": o.GetName()}
		}
		Expect(as(administrator).DeleteAllOf(ctx, object, namespace, named(object))).
			To(And(beDeniedBy("protected"), MatchError(ContainSubstring(object.GetName()+" and the image "+imageID(object)))))
		Expect(stored(ctx, object)).To(beUntouched())
		Expect(as(administrator).DeleteAllOf(ctx, object, namespace, named(another))).To(Succeed())
		Expect(stored(ctx, another)).NotTo(beUntouched())
	})

	DescribeTable("is one whose annotation is neither empty nor false: so it is with", func(ctx SpecContext, value string) {
		object := live(ctx, protected(value))
		Expect(as(administrator).Delete(ctx, object)).To(beDeniedBy("protected"))
		Expect(stored(ctx, object)).To(beUntouched())
	},
		Entry("true", "true"),
		Entry("True", "True"),
		Entry("yes", "yes"),
		Entry("1", "1"),
		Entry("a blank", " "),
		Entry("False", "False"),
		Entry("anything else", "until May"),
	)

	DescribeTable("is one whose annotation is neither empty nor false: so it is not with", func(ctx SpecContext, value string) {
		object := live(ctx, protected(value))
		Expect(as(administrator).Delete(ctx, object)).To(Succeed())
		Expect(stored(ctx, object)).NotTo(beUntouched())
	},
		Entry("false", "false"),
		Entry("empty", ""),
	)

	It("is deleted after the command that the refusal tells", func(ctx SpecContext) {
		object := live(ctx, protected("true"))
		refusal := as(administrator).Delete(ctx, object)
		Expect(refusal).To(beDeniedBy("protected"))
		follow(ctx, refusal, 0)
		Expect(as(administrator).Delete(ctx, object)).To(Succeed())
		Expect(stored(ctx, object)).NotTo(beUntouched())
	})

	It("is let go by the operator when it was protected after it was deleted", func(ctx SpecContext) {
		object := live(ctx)
		Expect(admin.Delete(ctx, object)).To(Succeed())
		Expect(patch(types.MergePatchType, `{"metadata":{"annotations":{"ecs.imagegc.io/protected":"true"}}}`)(
			ctx, as(editor), object)).To(Succeed())
		Expect(mergeRemove(ctx, as(operator), object)).To(Succeed())
		Expect(stored(ctx, object)).To(BeEmpty())
	})

	DescribeTable("is deleted with its namespace by", func(ctx SpecContext, user string) {
		object := ending(ctx)
		Eventually(as(user).Delete).WithArguments(ctx, object).Should(Succeed())
		Expect(stored(ctx, object)).NotTo(beUntouched())
	},
		Entry("the namespace controller", namespaceController),
		Entry("the one identity of all controllers", allControllers),
	)

	It("is deleted by the namespace controller also before the API server has heard why", func(ctx SpecContext) {
		object := live(ctx, protected("true"))
		Expect(as(namespaceController).Delete(ctx, object)).To(Succeed())
		Expect(stored(ctx, object)).NotTo(beUntouched())
	})

	DescribeTable("is not deleted with its namespace by", func(ctx SpecContext, user string) {
		object := ending(ctx)
		// By now the API server has heard of it.
		Eventually(as(allControllers).Delete).WithArguments(ctx, object, client.DryRunAll).Should(Succeed())
		Expect(as(user).Delete(ctx, object)).To(beDeniedBy("protected"))
		Expect(stored(ctx, object)).To(beUntouched())
	},
		Entry("a cluster administrator", clusterAdmin),
		Entry("the garbage collector", garbageCollector),
	)
})

var _ = Describe("Deleting the CRD", func() {
	It("passes by the protection, but not by the finalizer", func(ctx SpecContext) {
		object := live(ctx, protected("true"))
		DeferCleanup(func(ctx SpecContext) {
			Eventually(releaseAll).WithArguments(ctx).Should(Succeed())
			k8s.Install(ctx)
			awaitRules(ctx)
		})
		kubectl(ctx, "delete", "crd", "customimages.ecs.imagegc.io", "--wait=false")
		Eventually(stored).WithArguments(ctx, object).ShouldNot(beUntouched())
		Expect(mergeRemove(ctx, as(editor), object)).To(beDeniedBy("finalizer"))
		Expect(stored(ctx, object)).To(beHeld())
		Expect(mergeRemove(ctx, as(operator), object)).To(Succeed())
		Expect(stored(ctx, object)).To(BeEmpty())
	})
})

// releaseAll takes the finalizer off all objects, and succeeds once there is no CRD any more.
func releaseAll(ctx context.Context) error {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("CustomImageList"))
	if err := admin.List(ctx, list); err != nil {
		return client.IgnoreNotFound(err)
	}
	for _, item := range list.Items {
		if err := client.IgnoreNotFound(mergeRemove(ctx, admin, &item)); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d objects of the CRD were left", len(list.Items))
}

// owned gives an object an owner that whoever asks may well be able to delete.
func owned(o *unstructured.Unstructured) {
	o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "mine", UID: "1-2-3"}})
}

var waysToOwn = []request{
	{"creating", func(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
		o := again(object, owned)
		o.SetName("new-" + rand.String(5))
		return user.Create(ctx, o)
	}},
	{"applying", func(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
		return apply(ctx, user, again(object, owned))
	}},
	{"replacing", func(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
		o := again(object, owned)
		o.SetResourceVersion(object.GetResourceVersion())
		return user.Update(ctx, o)
	}},
	{"a merge patch", patch(types.MergePatchType,
		`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"mine","uid":"1-2-3"}]}}`)},
}

var _ = Describe("An owner, whose deletion deletes the object", func() {
	beOwned := ContainElement(WithTransform(func(o unstructured.Unstructured) int { return len(o.GetOwnerReferences()) },
		BeNumerically(">", 0)))

	for _, way := range waysToOwn {
		It("is given by "+way.name+" with the verb delete, and not without", func(ctx SpecContext) {
			object := live(ctx)
			for _, user := range []string{editor, forcer, releaser} {
				Expect(way.send(ctx, as(user), object.DeepCopy())).To(beDeniedBy("owner"))
			}
			Expect(stored(ctx, object)).NotTo(beOwned)
			Expect(way.send(ctx, as(administrator), object.DeepCopy())).To(Succeed())
			Expect(stored(ctx, object)).To(beOwned)
		})
	}

	It("stays through the changes of those who may not give one, is not exchanged, and is taken away", func(ctx SpecContext) {
		object := live(ctx, owned)
		Expect(mergeLabel(ctx, as(editor), object)).To(Succeed())
		for field, value := range map[string]string{"uid": "4-5-6", "name": "nobody", "kind": "Secret", "apiVersion": "v2"} {
			body := fmt.Sprintf(`[{"op":"replace","path":"/metadata/ownerReferences/0/%s","value":%q}]`, field, value)
			Expect(patch(types.JSONPatchType, body)(ctx, as(editor), object)).To(beDeniedBy("owner"), field)
		}
		Expect(patch(types.MergePatchType, `{"metadata":{"ownerReferences":null}}`)(ctx, as(editor), object)).To(Succeed())
		Expect(stored(ctx, object)).NotTo(beOwned)
	})

	It("is refused in words that tell the command that helps", func(ctx SpecContext) {
		object, user := live(ctx), newcomer(ctx)
		err := waysToOwn[3].send(ctx, as(user), object)
		Expect(err).To(beDeniedBy("owner"))
		follow(ctx, err, 0)
		Eventually(waysToOwn[3].send).WithArguments(ctx, as(user), object).Should(Succeed())
	})
})
