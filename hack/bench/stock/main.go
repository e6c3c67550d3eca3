// Command stock is a controller for CustomImages as kubebuilder scaffolds one and its book tells to fill in: one call
// after another, status updates, the finalizer removed by Update. It is what the benchmark compares the operator with. It
// has no brakes, and must not be let near images that somebody needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

type reconciler struct {
	client.Client
	ecs *ecs.Client
}

// Reconcile deletes the image of a deleted object, and looks at that of a live one.
func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	image := &v1alpha1.CustomImage{}
	if err := r.Get(ctx, request.NamespacedName, image); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !image.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.finalize(ctx, image)
	}
	if controllerutil.AddFinalizer(image, v1alpha1.Finalizer) {
		return ctrl.Result{}, r.Update(ctx, image)
	}
	found, err := r.ecs.FindImage(ctx, image.Spec.RegionID, image.Spec.ImageID)
	if err != nil {
		return ctrl.Result{}, err
	}
	status, reason := metav1.ConditionTrue, "Available"
	if found == nil {
		status, reason = metav1.ConditionFalse, "NotFound"
	}
	return ctrl.Result{RequeueAfter: 6 * time.Hour}, r.report(ctx, image, status, reason)
}

func (r *reconciler) finalize(ctx context.Context, image *v1alpha1.CustomImage) error {
	if !controllerutil.ContainsFinalizer(image, v1alpha1.Finalizer) {
		return nil
	}
	if err := r.report(ctx, image, metav1.ConditionFalse, "Deleting"); err != nil {
		return err
	}
	if _, err := r.ecs.DeleteImage(ctx, image.Spec.RegionID, image.Spec.ImageID, ptr.Deref(image.Spec.Force, false)); err != nil {
		return errors.Join(err, r.report(ctx, image, metav1.ConditionFalse, "Failed"))
	}
	found, err := r.ecs.FindImage(ctx, image.Spec.RegionID, image.Spec.ImageID)
	if err != nil || found != nil {
		return errors.Join(err, errors.New("the image is still there"))
	}
	controllerutil.RemoveFinalizer(image, v1alpha1.Finalizer)
	return r.Update(ctx, image)
}

func (r *reconciler) report(ctx context.Context, image *v1alpha1.CustomImage, status metav1.ConditionStatus, reason string) error {
	condition := metav1.Condition{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: reason}
	if !meta.SetStatusCondition(&image.Status.Conditions, condition) {
		return nil
	}
	image.Status.ObservedGeneration = ptr.To(image.Generation)
	return r.Status().Update(ctx, image)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	workers := flag.Int("max-concurrent-reconciles", 1, "workers")
	unlimited := flag.Bool("unlimited", false, "no rate limit for requests to the API server")
	endpoint := flag.String("ecs-endpoint", "", "URL for all calls of ECS")
	metrics := flag.String("metrics-bind-address", "0", "where to serve metrics")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 20, 30 // as client-go has them
	if *unlimited {
		config.QPS = -1
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{Scheme: scheme, Metrics: metricsserver.Options{BindAddress: *metrics}})
	if err != nil {
		return err
	}
	api := openapi.New(openapi.Config{Endpoints: openapi.Endpoints{Override: *endpoint}, Timeout: 45 * time.Second,
		Connections: *workers, Clock: clock.RealClock{}})
	cloud := ecs.New(api).As(openapi.Credentials{AccessKeyID: os.Getenv("ALIBABA_CLOUD_ACCESS_KEY_ID"),
		AccessKeySecret: os.Getenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET")})
	err = ctrl.NewControllerManagedBy(mgr).For(&v1alpha1.CustomImage{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: *workers}).
		Complete(&reconciler{Client: mgr.GetClient(), ecs: cloud})
	if err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}
