package install

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const (
	account = "1234567890123456"
	ownRole = "acs:ram::" + account + ":role/imagegc"
	tenant  = "team-a" // may not use the operator's identity
	friend  = "team-b" // may
	// canary is in everything that is secret, and must be in nothing that is shown.
	canary = "canary"
)

// scenario is a cloud with a role that the operator assumes by the token of its service account, one that it assumes
// with that, and keys for Secrets.
func scenario() ecssim.Scenario {
	image := func(id string, usedBy ...string) ecssim.Image {
		return ecssim.Image{ImageID: id, RegionID: "cn-hangzhou", UsedBy: usedBy}
	}
	return ecssim.Scenario{
		AccountID: account,
		AccessKeys: []ecssim.AccessKey{
			{ID: canary + "-key-id", Secret: canary + "-key-secret", SecurityToken: canary + "-key-token"},
			{ID: canary + "-old-id", Secret: canary + "-old-secret", Inactive: true},
		},
		Roles: []ecssim.Role{
			{ARN: ownRole, OIDCProviderARN: "acs:ram::" + account + ":oidc-provider/ack", OIDCTokens: []string{canary + "-oidc-token"}},
			{ARN: ownRole + "-assumed", Trusts: []string{account}, ExternalID: canary + "-external-id"},
		},
		Images: []ecssim.Image{image("m-bp1key"), image("m-bp1ambient"), image("m-bp1assumed"), image("m-bp1used", "i-bp1a")},
	}
}

var _ = Describe("The manager at work, with a role and Secrets, and its log at the most talkative", Ordered, func() {
	var (
		cloud   *ecssim.Server
		session *gexec.Session
		start   func(ctx context.Context, environment ...string)
		metrics string
	)

	BeforeAll(func(ctx SpecContext) {
		var err error
		cloud, err = ecssim.New(scenario(), nil)
		Expect(err).NotTo(HaveOccurred())
		server := httptest.NewServer(cloud)
		DeferCleanup(func() { cloud.Close(); server.Close() })
		metrics = freeAddress(ctx)
		tokenFile := cluster.Write("token", []byte(canary+"-oidc-token\n"))
		start = func(ctx context.Context, environment ...string) {
			command := exec.Command(manager, append(deployment.Spec.Template.Spec.Containers[0].Args,
				"--health-probe-bind-address=0", "--metrics-bind-address="+metrics, "--leader-election-namespace="+namespace,
				"--kubeconfig="+k8s.OperatorKubeconfig(ctx), "--ecs-endpoint="+server.URL, "--ambient-namespaces="+namespace+","+friend,
				"--blocked-backoff=200ms,1s", "--waiting-backoff=200ms,1s", "--zap-log-level=10")...)
			command.Env = append(environment,
				"ALIBABA_CLOUD_ROLE_ARN="+ownRole, "ALIBABA_CLOUD_OIDC_TOKEN_FILE="+tokenFile,
				"ALIBABA_CLOUD_OIDC_PROVIDER_ARN=acs:ram::"+account+":oidc-provider/ack",
				"ALIBABA_CLOUD_ACCESS_KEY_ID="+canary+"-env-id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET="+canary+"-env-secret")
			session, err = gexec.Start(command, GinkgoWriter, GinkgoWriter)
			Expect(err).NotTo(HaveOccurred())
			started := session
			DeferCleanup(func() { started.Kill().Wait() })
		}
		start(ctx)

		for _, in := range []string{tenant, friend} {
			Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: in}})).To(Succeed())
		}
		for object, key := range map[string][3]string{
			"key": {"key-id", "key-secret", "key-token"}, "old": {"old-id", "old-secret", ""}, "wrong": {"key-id", "wrong-secret", "key-token"},
		} {
			data := map[string]string{"access-key-id": canary + "-" + key[0], "access-key-secret": canary + "-" + key[1]}
			if key[2] != "" {
				data["security-token"] = canary + "-" + key[2]
			}
			putSecret(ctx, tenant, object, data)
		}
		putSecret(ctx, friend, "role", map[string]string{"role-arn": ownRole + "-assumed", "external-id": canary + "-external-id"})
	})

	It("says which command lets it read a tenant's Secret, and reads it once that was run", func(ctx SpecContext) {
		apply := kubectl(ctx, "apply", "-f", cluster.Write("images.yaml", []byte(
			manifest(tenant, "key", "m-bp1key", "key")+manifest(tenant, "old", "m-bp1old", "old")+
				manifest(tenant, "wrong", "m-bp1wrong", "wrong")+manifest(tenant, "ambient", "m-bp1ambient", "")+
				manifest(namespace, "ambient", "m-bp1ambient", "")+manifest(friend, "assumed", "m-bp1assumed", "role")+
				manifest(namespace, "used", "m-bp1used", ""))))
		Expect(apply).To(cluster.BeQuiet())
		Eventually(kubectl).WithArguments(ctx, "get", "cimg", "-n", tenant, "key", "-o", "wide").Should(tell("SecretForbidden"))
		message := kubectl(ctx, "get", "cimg", "-n", tenant, "key",
			"-o", `jsonpath={.status.conditions[?(@.type=="Ready")].message}`).Stdout
		_, command, _ := strings.Cut(message, "`kubectl ")
		command, _, _ = strings.Cut(command, "`")
		Expect(kubectl(ctx, strings.Fields(command)...)).To(cluster.BeQuiet())
		Eventually(kubectl).WithArguments(ctx, "get", "cimg", "-n", tenant, "key", "-o", "wide").Should(tell("Available"))
	})

	It("uses the key of each object and no other", func(ctx SpecContext) {
		Expect(kubectl(ctx, "create", "rolebinding", "imagegc-credentials-reader", "-n", friend,
			"--clusterrole=imagegc-credentials-reader", "--serviceaccount="+namespace+":"+name)).To(cluster.BeQuiet())
		for object, reason := range map[string]string{
			tenant + "/old": "InvalidAccessKeyIdInactive", tenant + "/wrong": "SignatureDoesNotMatch",
			tenant + "/ambient":    "AmbientForbidden",
			namespace + "/ambient": "Available", friend + "/assumed": "Available", namespace + "/used": "Available",
		} {
			in, image, _ := strings.Cut(object, "/")
			Eventually(kubectl).WithArguments(ctx, "get", "cimg", "-n", in, image, "-o", "wide").Should(tell(reason), object)
		}
		for _, call := range cloud.Calls() {
			Expect(call.AccessKeyID).NotTo(Equal(canary+"-env-id"), "the identity is the role: nothing falls back")
		}
	})

	It("takes images to their ends, and says twice what happened twice", func(ctx SpecContext) {
		Expect(kubectl(ctx, "delete", "cimg", "-n", tenant, "key").Err).NotTo(HaveOccurred())
		Expect(kubectl(ctx, "delete", "cimg", "-n", namespace, "ambient").Err).NotTo(HaveOccurred())
		Expect(kubectl(ctx, "delete", "cimg", "-n", friend, "assumed").Err).NotTo(HaveOccurred())
		Expect(kubectl(ctx, "delete", "cimg", "-n", namespace, "used", "--wait=false").Err).NotTo(HaveOccurred())
		used := ecssim.Image{ImageID: "m-bp1used", RegionID: "cn-hangzhou", UsedBy: []string{"i-bp1a"}}
		for range 2 {
			used.Copying = 0
			Expect(cloud.PutImage(used)).To(Succeed())
			Eventually(kubectl).WithArguments(ctx, "get", "cimg", "-n", namespace, "used").Should(tell("ImageUsingByInstance"))
			used.Copying = ecssim.Forever
			Expect(cloud.PutImage(used)).To(Succeed())
			Eventually(kubectl).WithArguments(ctx, "get", "cimg", "-n", namespace, "used").Should(tell("OperationDeniedImageCopying"))
		}
		Expect(cloud.PutImage(ecssim.Image{ImageID: "m-bp1used", RegionID: "cn-hangzhou"})).To(Succeed())
		Expect(kubectl(ctx, "wait", "--for=delete", "cimg/used", "-n", namespace, "--timeout=20s").Err).NotTo(HaveOccurred())
		Expect(cloud.Images()).To(BeEmpty())
	})

	It("shows nothing secret in any log, event, status or metric", func(ctx SpecContext) {
		Expect(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "auditor"}})).To(Succeed())
		bindMetrics(ctx, "auditor")
		scraped := ""
		Eventually(func() (err error) {
			scraped, err = cluster.Get(ctx, "https://"+metrics+"/metrics", k8s.Token(ctx, "auditor"))
			return err
		}).Should(Succeed())
		Expect(scraped).To(HavePrefix("200 "))
		shown := map[string]string{
			"metrics": scraped,
			"log":     string(session.Err.Contents()) + string(session.Out.Contents()),
			"objects": kubectl(ctx, "get", "cimg", "-A", "-o", "yaml").Stdout,
			"events":  kubectl(ctx, "get", "events.events.k8s.io", "-A", "-o", "yaml").Stdout + kubectl(ctx, "get", "events", "-A", "-o", "yaml").Stdout,
		}
		for where, text := range shown {
			Expect(text).NotTo(BeEmpty())
			Expect(text).NotTo(ContainSubstring(canary), where)
			Expect(dumped(text)).NotTo(ContainSubstring(canary), where)
			for _, call := range cloud.Calls() { // the keys of the assumed roles
				if call.AccessKeyID != "" {
					Expect(text).NotTo(ContainSubstring(call.AccessKeyID), where)
				}
			}
		}
		Expect(dumped(shown["log"])).To(ContainSubstring("m-bp1used"), "or dumps were not read")
		Expect(shown["log"]).To(ContainSubstring("SignatureDoesNotMatch"), "or the log would be the wrong one")
		Expect(shown["objects"]).To(ContainSubstring("SignatureDoesNotMatch"))
		Expect(shown["events"]).To(ContainSubstring("SignatureDoesNotMatch"))
	})

	It("serves metrics by TLS 1.2 or later, and never by HTTP/2", func() {
		dial := func(config *tls.Config) (tls.ConnectionState, error) {
			config.InsecureSkipVerify = true // it makes its certificate itself
			connection, err := tls.Dial("tcp", metrics, config)
			if err != nil {
				return tls.ConnectionState{}, err
			}
			defer func() { _ = connection.Close() }()
			return connection.ConnectionState(), nil
		}
		_, err := dial(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		Expect(err).To(MatchError(ContainSubstring("protocol version")))
		state, err := dial(&tls.Config{MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}})
		Expect(err).NotTo(HaveOccurred())
		Expect(state.NegotiatedProtocol).To(Equal("http/1.1"))
		_, err = dial(&tls.Config{NextProtos: []string{"h2"}})
		Expect(err).To(HaveOccurred())
	})

	It("stops when told to, and works also with an API server that cannot stream lists", func(ctx SpecContext) {
		session.Signal(syscall.SIGTERM)
		Eventually(session).Should(gexec.Exit(0))
		start(ctx, "KUBE_FEATURE_WatchListClient=false")
		Expect(cloud.PutImage(ecssim.Image{ImageID: "m-bp1late", RegionID: "cn-hangzhou"})).To(Succeed())
		Expect(kubectl(ctx, "apply", "-f", cluster.Write("late.yaml", []byte(manifest(namespace, "late", "m-bp1late", ""))))).To(cluster.BeQuiet())
		Eventually(kubectl).WithArguments(ctx, "get", "cimg", "-n", namespace, "late").Should(tell("Available"))
		Expect(kubectl(ctx, "delete", "cimg", "-n", namespace, "late").Err).NotTo(HaveOccurred())
	})

	It("uses every permission that it has, and needs none that it has not", func(ctx SpecContext) {
		Eventually(func(g Gomega) {
			has := granted(ctx, tenant)
			uses, other := used(ctx, has, tenant)
			g.Expect(other).To(BeEmpty(), "asked for without a permission")
			g.Expect(uses).To(Equal(has))
		}).Should(Succeed())
		has := granted(ctx, tenant)
		uses, _ := used(ctx, has, tenant)
		checkPermissionTable(permissionTable(has, uses))
	})
})

// dumped returns what is in the hexadecimal dumps of a log, in which a text is broken at every 16th byte.
func dumped(text string) string {
	var content strings.Builder
	for _, line := range regexp.MustCompile(`\|(.{1,16})\|\\n`).FindAllStringSubmatch(text, -1) {
		content.WriteString(line[1])
	}
	return content.String()
}

// manifest is a CustomImage as a person writes it.
func manifest(in, object, imageID, secret string) string {
	text := fmt.Sprintf("---\napiVersion: ecs.imagegc.io/v1alpha1\nkind: CustomImage\nmetadata: {namespace: %s, name: %s}\n"+
		"spec:\n  regionID: cn-hangzhou\n  imageID: %s\n", in, object, imageID)
	if secret != "" {
		text += fmt.Sprintf("  credentialsSecretRef: {name: %s}\n", secret)
	}
	return text
}

func putSecret(ctx context.Context, in, object string, data map[string]string) {
	GinkgoHelper()
	Expect(admin.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: object}, StringData: data})).To(Succeed())
}
