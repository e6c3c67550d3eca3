// Package faults runs scenarios around the real manager, a real API server and a simulated ECS, and lets every call of the
// operator go wrong in every way: refused, lost, hung, or the last one before the operator dies. It also shows the operator
// old views of the cluster, and runs two operators at once. All the time it checks the invariants of docs/reliability.md.
//
// It knows the operator from outside: its calls (wire_test.go) and what they do to objects and images (invariants_test.go).
// Of the operator's code it knows only how to start it (operator_test.go).
//
// `make faults` runs all plans, `make faults PLAN=name` one, and prints the calls of each that failed.
package faults

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

var (
	onlyPlan  = flag.String("plan", "", "run only the plans whose names begin with this, and print their calls")
	inPairs   = flag.Bool("pairs", false, "run the plans with two operators at once, for each class")
	everyCall = flag.Bool("complete", false, "have every recorded call of every scenario go wrong in every way")
	seed      = flag.Uint64("seed", 0, "run only the sequence of operations of this seed, and print its calls")
	patience  = flag.Duration("patience", time.Minute, "how long users wait for the operator before something is wrong")
	soakTime  = flag.Duration("soak", 0, "how long to soak; 0 to skip that")
	objects   = flag.Int("objects", 2000, "how many objects a soak keeps")
)

var (
	scheme   = runtime.NewScheme()
	admin    client.WithWatch // users, and the suite itself: without limits
	editor   client.Client    // a person who may change CustomImages, and not delete them
	operator *rest.Config     // the operator, under the generated role and nothing more
)

func TestMain(m *testing.M) {
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	_ = clientgoscheme.AddToScheme(scheme) // these two fail only on a program error
	_ = v1alpha1.AddToScheme(scheme)
	if order := os.Getenv(childOrder); order != "" {
		log.Fatal(runChild(order))
	}
	code, err := withCluster(m.Run)
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(code)
}

// sharedCluster is the environment variable with the kubeconfig that `make mutants` gives to many runs. It is not KUBECONFIG:
// the suite deletes namespaces.
const sharedCluster = "FAULTS_KUBECONFIG"

// withCluster starts an API server, or uses the shared one.
func withCluster(run func() int) (code int, err error) {
	environment := &envtest.Environment{CRDDirectoryPaths: []string{"../../config/crd/bases"}, ErrorIfCRDPathMissing: true}
	if shared := os.Getenv(sharedCluster); shared != "" {
		if environment.Config, err = clientcmd.BuildConfigFromFlags("", shared); err != nil {
			return 1, err
		}
		shared := true
		environment.UseExistingCluster = &shared
	}
	config, err := environment.Start()
	if err != nil {
		return 1, fmt.Errorf("start the control plane: %w", err)
	}
	defer func() { _ = environment.Stop() }()
	config.QPS = -1
	if admin, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		return 1, err
	}
	if operator, err = operatorConfig(config); err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if editor, err = editorsClient(ctx, config); err != nil {
		return 1, err
	}
	if err := police(ctx); err != nil {
		return 1, fmt.Errorf("install the admission policies: %w", err)
	}
	return run(), nil
}

// operatorConfig binds the role that is generated from the markers to a service account, and acts as that.
func operatorConfig(config *rest.Config) (*rest.Config, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "operator"}}
	objects := []client.Object{account}
	for _, name := range []string{"role", "credentials_reader_role"} {
		role, err := readRole(name)
		if err != nil {
			return nil, err
		}
		objects = append(objects, role, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "operator-" + role.Name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: account.Namespace, Name: account.Name}},
		})
	}
	for _, object := range objects {
		if err := put(ctx, object); err != nil {
			return nil, err
		}
	}
	acting := rest.CopyConfig(config)
	acting.Impersonate.UserName = "system:serviceaccount:" + account.Namespace + ":" + account.Name
	acting.Impersonate.Groups = []string{"system:serviceaccounts", "system:authenticated"}
	return acting, nil
}

func readRole(name string) (*rbacv1.ClusterRole, error) {
	data, err := os.ReadFile("../../config/rbac/" + name + ".yaml")
	if err != nil {
		return nil, err
	}
	role := &rbacv1.ClusterRole{}
	return role, yaml.UnmarshalStrict(data, role)
}
