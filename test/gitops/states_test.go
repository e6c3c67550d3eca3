package gitops

import (
	"context"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/runtime/cel"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// state brings an object into a state, and returns it as the API server has it.
type state func(context.Context) *unstructured.Unstructured

// live is the state of an object that is not deleted.
func live(reason string, image ecssim.Image, edits ...edit) state {
	return func(ctx context.Context) *unstructured.Unstructured {
		GinkgoHelper()
		return becomes(ctx, create(ctx, inCloud(image, edits...)), reason)
	}
}

// deleted is the state of an object that was deleted when it was available.
func deleted(reason string, image ecssim.Image, edits ...edit) state {
	return func(ctx context.Context) *unstructured.Unstructured {
		GinkgoHelper()
		object := live(v1alpha1.ReasonAvailable, image, edits...)(ctx)
		Expect(k8s.Admin.Delete(ctx, object.DeepCopy())).To(Succeed())
		return becomes(ctx, object, reason)
	}
}

// unseen is an object in a namespace that the operator does not watch.
func unseen(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	return create(ctx, inCloud(ecssim.Image{}, in("default")))
}

func deletedUnseen(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	object := unseen(ctx)
	Expect(k8s.Admin.Delete(ctx, object.DeepCopy())).To(Succeed())
	return stored(ctx, object)
}

// changedUnseen has a generation that the operator has not reported on. A real one has it for some milliseconds.
func changedUnseen(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	object := live(v1alpha1.ReasonAvailable, ecssim.Image{})(ctx)
	object.SetGeneration(object.GetGeneration() + 1)
	return object
}

func retrying(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	object := inCloud(ecssim.Image{})
	fail(ecssim.Fault{Action: "DescribeImages", ImageID: object.GetName()})
	return becomes(ctx, create(ctx, object), v1alpha1.ReasonRetrying)
}

func deletedRetrying(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	fail(ecssim.Fault{Action: "DeleteImage"})
	return deleted(v1alpha1.ReasonRetrying, ecssim.Image{})(ctx)
}

// fail has all calls fail that a fault is about, until the spec ends.
func fail(fault ecssim.Fault) {
	GinkgoHelper()
	fault.Times = -1
	Expect(sim.AddFault(fault)).To(Succeed())
	DeferCleanup(sim.ClearFaults)
}

// configure changes the cloud until the spec ends.
func configure(change func(*ecssim.Scenario)) {
	GinkgoHelper()
	Expect(sim.Configure(change)).To(Succeed())
	DeferCleanup(func() {
		Expect(sim.Configure(func(s *ecssim.Scenario) { s.Quotas, s.DeletionDelay = nil, 0 })).To(Succeed())
	})
}

// throttled is in a region of its own, since the operator keeps in mind that its quota is used up. Windows begin at full
// hours and the like, and less than a minute before the end of one the operator says nothing.
func throttled(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	configure(func(s *ecssim.Scenario) {
		s.Quotas = map[string]ecssim.Quota{"DescribeImages": {Limit: 0, Window: ecssim.Duration(1000 * time.Hour)}}
	})
	return live(v1alpha1.ReasonThrottled, ecssim.Image{RegionID: "cn-shanghai"})(ctx)
}

func notFound(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	object := inCloud(ecssim.Image{})
	sim.DeleteImage(object.GetName())
	return becomes(ctx, create(ctx, object), "InvalidImageIdNotFound")
}

// conflict is an object that is younger than another one for its image. Its creation time says so in seconds.
func conflict(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	older := live(v1alpha1.ReasonAvailable, ecssim.Image{})(ctx)
	Eventually(time.Since).WithArguments(older.GetCreationTimestamp().Time).Should(BeNumerically(">", time.Second))
	younger := manifestOf(older.GetName(), region)
	younger.SetName(younger.GetName() + "-again")
	return becomes(ctx, create(ctx, younger), v1alpha1.ReasonConflict)
}

// deletedProtected was protected too late.
func deletedProtected(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	object := deleted("ImageUsingByInstance", ecssim.Image{UsedBy: []string{"i-bp1"}})(ctx)
	before := object.DeepCopy()
	object.SetAnnotations(map[string]string{v1alpha1.AnnotationProtected: "true"})
	Expect(k8s.Admin.Patch(ctx, object, client.MergeFrom(before))).To(Succeed())
	return becomes(ctx, object, v1alpha1.ReasonProtected)
}

func deletedStillShown(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	configure(func(s *ecssim.Scenario) { s.DeletionDelay = ecssim.Duration(time.Hour) })
	return deleted(v1alpha1.ReasonDeleting, ecssim.Image{})(ctx)
}

func finalizer(o *unstructured.Unstructured) *unstructured.Unstructured {
	o.SetFinalizers([]string{"example.com/backup"})
	return o
}

var _ = Describe("An object", func() {
	DescribeTable("has the health of its state", func(ctx SpecContext, is state, argo string, flux, bare status.Status) {
		object := is(ctx)

		health, message := argoHealth(object)
		Expect(health).To(Equal(argo), message)
		if ready := condition(object, "Ready"); object.Object["status"].(map[string]any)["observedGeneration"] == object.GetGeneration() {
			Expect(message).To(Equal(ready["message"]))
		}

		evaluator, err := cel.NewStatusEvaluator(&fluxExample("images.yaml").Spec.HealthCheckExprs[0].HealthCheckExpressions)
		Expect(err).NotTo(HaveOccurred())
		result, err := evaluator.Evaluate(ctx, object)
		Expect(err).NotTo(HaveOccurred())
		Expect(result.Status).To(Equal(flux))

		result, err = status.Compute(object)
		Expect(err).NotTo(HaveOccurred())
		Expect(result.Status).To(Equal(bare), result.Message)
	},
		Entry("not observed", state(unseen), "Progressing", status.InProgressStatus, status.InProgressStatus),
		Entry("changed, and not observed since", state(changedUnseen), "Progressing", status.InProgressStatus, status.InProgressStatus),
		Entry("Retrying", state(retrying), "Progressing", status.InProgressStatus, status.InProgressStatus),
		Entry("Throttled", state(throttled), "Progressing", status.InProgressStatus, status.InProgressStatus),
		Entry("Available", live("Available", ecssim.Image{}), "Healthy", status.CurrentStatus, status.CurrentStatus),
		Entry("NotFound", state(notFound), "Degraded", status.FailedStatus, status.FailedStatus),
		Entry("Conflict", state(conflict), "Degraded", status.FailedStatus, status.FailedStatus),
		Entry("Denied", live("SecretForbidden", ecssim.Image{}, secret("none")), "Degraded", status.FailedStatus, status.FailedStatus),
		Entry("AccountMismatch", live("AccountMismatch", ecssim.Image{}, with("accountID", "9876543210987654")),
			"Degraded", status.FailedStatus, status.FailedStatus),

		// Argo CD does not ask for the health of these.
		Entry("deleted, and not observed", state(deletedUnseen), "Progressing", status.InProgressStatus, status.TerminatingStatus),
		Entry("deleted, in use", deleted("ImageUsingByInstance", ecssim.Image{UsedBy: []string{"i-bp1"}}),
			"Degraded", status.FailedStatus, status.TerminatingStatus),
		Entry("deleted, shared", deleted("ImageUseShared", ecssim.Image{SharedWith: []string{"1098765432109876"}}),
			"Degraded", status.FailedStatus, status.TerminatingStatus),
		Entry("deleted, public", deleted("ImageIsPublic", ecssim.Image{Public: true}),
			"Degraded", status.FailedStatus, status.TerminatingStatus),
		Entry("deleted, protected", state(deletedProtected), "Degraded", status.FailedStatus, status.TerminatingStatus),
		Entry("deleted, copying", deleted("OperationDeniedImageCopying", ecssim.Image{Copying: ecssim.Forever}),
			"Progressing", status.FailedStatus, status.TerminatingStatus),
		Entry("deleted, accepted, and still shown", state(deletedStillShown), "Progressing", status.FailedStatus, status.TerminatingStatus),
		Entry("deleted, waiting for the finalizer of another", deleted("Pending", ecssim.Image{}, finalizer),
			"Progressing", status.FailedStatus, status.TerminatingStatus),
		Entry("deleted, Retrying", state(deletedRetrying), "Progressing", status.FailedStatus, status.TerminatingStatus),
	)
})

// argoHealth runs config/gitops/argocd/health.lua as Argo CD does: with these libraries, and the object in obj.
func argoHealth(object *unstructured.Unstructured) (health, message string) {
	GinkgoHelper()
	vm := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer vm.Close()
	for _, open := range []lua.LGFunction{lua.OpenPackage, lua.OpenBase, lua.OpenTable} {
		Expect(vm.CallByParam(lua.P{Fn: vm.NewFunction(open), Protect: true}, lua.LString(""))).To(Succeed())
	}
	vm.SetGlobal("obj", luaValue(vm, object.Object))
	Expect(vm.DoFile(root + "/config/gitops/argocd/health.lua")).To(Succeed())
	result, ok := vm.Get(-1).(*lua.LTable)
	Expect(ok).To(BeTrue())
	return result.RawGetString("status").String(), result.RawGetString("message").String()
}

func luaValue(vm *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case map[string]any:
		table := vm.NewTable()
		for key, item := range value {
			table.RawSetString(key, luaValue(vm, item))
		}
		return table
	case []any:
		table := vm.NewTable()
		for _, item := range value {
			table.Append(luaValue(vm, item))
		}
		return table
	case string:
		return lua.LString(value)
	case int64:
		return lua.LNumber(value)
	case bool:
		return lua.LBool(value)
	}
	return lua.LNil
}
