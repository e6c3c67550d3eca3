// Package admission tests what the API server accepts and refuses, rule by rule, against a real one into which
// config/default is installed.
package admission

import (
	"context"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

var (
	k8s     *cluster.Cluster
	admin   client.Client                             // an administrator's, who is asked for no permission at all
	kubectl func(ctx context.Context, args ...string) // as an administrator; has to succeed
)

func TestAdmission(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "admission")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	k8s = cluster.Start(ctx, &envtest.Environment{})
	admin, kubectl = k8s.Admin, k8s.MustKubectl
	bindRoles(ctx)
	awaitRules(ctx)
})
