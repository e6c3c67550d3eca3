// Package clients has public SDKs that know nothing of this project call the simulator, so that it cannot
// agree with our own client on a mistake.
package clients

import (
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const region = "cn-hangzhou"

var goodKey = ecssim.AccessKey{ID: "demo-id", Secret: "demo-secret"}

// caller is an SDK as it was released, set up for one endpoint and one key. A refused call is a refusal.
type caller interface {
	setRegion(id string)
	deleteImage(imageID string, force bool) (requestID string, err error)
	describeImages(page, size int) (total int, imageIDs []string, err error)
	describeInstances(imageID, token string, size int) (next string, instanceIDs []string, err error)
	callerIdentity() (accountID, arn string, err error)
}

// refusal is what a client reports of an error answer.
type refusal struct {
	status    int
	code      string
	message   string
	requestID string
	wait      time.Duration
}

func (r refusal) Error() string { return fmt.Sprintf("%d %s: %s", r.status, r.code, r.message) }

var callers = map[string]func(t *testing.T, host string, key ecssim.AccessKey) caller{
	"darabonba-openapi (V3)":         newDarabonba,
	"alibaba-cloud-sdk-go (V1 JSON)": newSDK("JSON"),
	"alibaba-cloud-sdk-go (V1 XML)":  newSDK("XML"),
}

// forEachCaller serves a scenario to each client.
func forEachCaller(t *testing.T, s ecssim.Scenario, key ecssim.AccessKey,
	test func(t *testing.T, simulator *ecssim.Server, c caller)) {
	t.Helper()
	s.AccountID = "1234567890123456"
	s.AccessKeys = []ecssim.AccessKey{goodKey}
	for _, name := range slices.Sorted(maps.Keys(callers)) {
		t.Run(name, func(t *testing.T) {
			simulator, err := ecssim.New(s, nil)
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(simulator)
			t.Cleanup(server.Close)
			test(t, simulator, callers[name](t, strings.TrimPrefix(server.URL, "http://"), key))
		})
	}
}

func image(id string, change func(*ecssim.Image)) ecssim.Image {
	i := ecssim.Image{ImageID: id, RegionID: region}
	if change != nil {
		change(&i)
	}
	return i
}

func lastCall(t *testing.T, simulator *ecssim.Server) ecssim.Call {
	t.Helper()
	calls := simulator.Calls()
	if len(calls) == 0 {
		t.Fatal("no call arrived")
	}
	return calls[len(calls)-1]
}

func TestADeletionSucceeds(t *testing.T) {
	for name, test := range map[string]struct {
		image func(*ecssim.Image)
		force bool
	}{
		"of a free image":              {},
		"by force of one that is used": {func(i *ecssim.Image) { i.UsedBy = []string{"i-1"} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			scenario := ecssim.Scenario{Images: []ecssim.Image{image("m-bp1", test.image), image("m-bp2", nil)}}
			forEachCaller(t, scenario, goodKey, func(t *testing.T, simulator *ecssim.Server, c caller) {
				requestID, err := c.deleteImage("m-bp1", test.force)
				call := lastCall(t, simulator)
				if err != nil || requestID == "" || requestID != call.RequestID {
					t.Errorf("the client reports %q, %v", requestID, err)
				}
				if call.Code != "" || !call.SignatureValid || call.Force != test.force {
					t.Errorf("record %+v", call)
				}
				if images := simulator.Images(); len(images) != 1 || images[0].ImageID != "m-bp2" {
					t.Errorf("left are %+v", images)
				}
			})
		})
	}
}

func TestEveryDocumentedErrorOfADeletionIsReported(t *testing.T) {
	for _, test := range []struct {
		code    string
		status  int
		imageID string
		image   func(*ecssim.Image)
	}{
		{"ImageUsingByInstance", 403, "m-bp1", func(i *ecssim.Image) { i.UsedBy = []string{"i-1"} }},
		{"ImageUseShared", 403, "m-bp1", func(i *ecssim.Image) { i.SharedWith = []string{"1098"} }},
		{"OperationDenied.ImageCopying", 403, "m-bp1", func(i *ecssim.Image) { i.Copying = ecssim.Forever }},
		{"ImageIsImporting", 403, "m-bp1", func(i *ecssim.Image) { i.Importing = ecssim.Forever }},
		{"ImageIsExporting", 403, "m-bp1", func(i *ecssim.Image) { i.Exporting = ecssim.Forever }},
		{"InvalidImageId.NotFound", 404, "m-none", nil},
		{"ImageIsPublic", 403, "m-bp1", func(i *ecssim.Image) { i.Public = true }},
		{"ImageIsCreating", 403, "m-bp1", func(i *ecssim.Image) { i.Creating = ecssim.Forever }},
		{"InvalidRegionId.NotFound", 404, "m-bp1", nil},
	} {
		t.Run(test.code, func(t *testing.T) {
			scenario := ecssim.Scenario{Images: []ecssim.Image{image("m-bp1", test.image)}}
			forEachCaller(t, scenario, goodKey, func(t *testing.T, simulator *ecssim.Server, c caller) {
				if test.code == "InvalidRegionId.NotFound" {
					c.setRegion("cn-atlantis")
				}
				_, err := c.deleteImage(test.imageID, false)
				expectRefusal(t, err, test.status, test.code)
				call := lastCall(t, simulator)
				if call.Code != test.code || !call.SignatureValid || len(simulator.Calls()) != 1 {
					t.Errorf("record %+v", call)
				}
				if _, found := simulator.Image("m-bp1"); !found {
					t.Error("the image is gone")
				}
			})
		})
	}
}

func expectRefusal(t *testing.T, err error, status int, code string) (wait time.Duration) {
	t.Helper()
	var got refusal
	if !errors.As(err, &got) || got.status != status || got.code != code || got.requestID == "" {
		t.Errorf("the client reports %#v", err)
	}
	return got.wait
}

func TestAKeyThatDoesNotFitIsReported(t *testing.T) {
	for name, test := range map[string]struct {
		key    ecssim.AccessKey
		status int
		code   string
	}{
		"a bad signature": {ecssim.AccessKey{ID: "demo-id", Secret: "guess"}, 400, "SignatureDoesNotMatch"},
		"an unknown key":  {ecssim.AccessKey{ID: "nobody", Secret: "demo-secret"}, 404, "InvalidAccessKeyId.NotFound"},
	} {
		t.Run(name, func(t *testing.T) {
			scenario := ecssim.Scenario{Images: []ecssim.Image{image("m-bp1", nil)}}
			forEachCaller(t, scenario, test.key, func(t *testing.T, simulator *ecssim.Server, c caller) {
				_, err := c.deleteImage("m-bp1", true)
				expectRefusal(t, err, test.status, test.code)
				if call := lastCall(t, simulator); call.SignatureValid || call.Code != test.code {
					t.Errorf("record %+v", call)
				}
				if len(simulator.Images()) != 1 {
					t.Error("the image is gone")
				}
			})
		})
	}
}

func TestAllPagesOf250ImagesAreRead(t *testing.T) {
	var scenario ecssim.Scenario
	for n := range 250 {
		scenario.Images = append(scenario.Images, image(fmt.Sprintf("m-%03d", n), func(i *ecssim.Image) {
			i.SnapshotIDs, i.Tags = []string{"s-1"}, map[string]string{"team": "web"}
		}))
	}
	forEachCaller(t, scenario, goodKey, func(t *testing.T, simulator *ecssim.Server, c caller) {
		seen := map[string]bool{}
		for page := 1; page <= 3; page++ {
			total, ids, err := c.describeImages(page, 100)
			if err != nil || total != 250 || len(ids) != min(100, 250-100*(page-1)) {
				t.Errorf("page %d has %d of %d images: %v", page, len(ids), total, err)
			}
			for _, id := range ids {
				seen[id] = true
			}
		}
		if len(seen) != 250 || len(simulator.Calls()) != 3 {
			t.Errorf("saw %d images in %d calls", len(seen), len(simulator.Calls()))
		}
	})
}

func TestAllPagesOf25InstancesAreRead(t *testing.T) {
	var scenario ecssim.Scenario
	for _, id := range []string{"m-bp1", "m-bp2"} {
		scenario.Images = append(scenario.Images, image(id, func(i *ecssim.Image) {
			for n := range 25 {
				i.UsedBy = append(i.UsedBy, fmt.Sprintf("i-%s-%02d", id, n))
			}
		}))
	}
	forEachCaller(t, scenario, goodKey, func(t *testing.T, simulator *ecssim.Server, c caller) {
		var seen []string
		token := ""
		for page := 1; page <= 3; page++ {
			next, ids, err := c.describeInstances("m-bp1", token, 10)
			if err != nil || (next == "") != (page == 3) {
				t.Errorf("page %d ends with %q: %v", page, next, err)
			}
			token, seen = next, append(seen, ids...)
		}
		if want := scenario.Images[0].UsedBy; !slices.Equal(seen, want) || len(simulator.Calls()) != 3 {
			t.Errorf("saw %v in %d calls", seen, len(simulator.Calls()))
		}
	})
}

func TestTheCallerIsIdentified(t *testing.T) {
	forEachCaller(t, ecssim.Scenario{}, goodKey, func(t *testing.T, simulator *ecssim.Server, c caller) {
		account, arn, err := c.callerIdentity()
		if err != nil || account != "1234567890123456" || arn != "acs:ram::1234567890123456:user/demo-id" {
			t.Errorf("the client reports %q, %q, %v", account, arn, err)
		}
		if call := lastCall(t, simulator); !call.SignatureValid || call.Action != "GetCallerIdentity" {
			t.Errorf("record %+v", call)
		}
	})
}

func TestThrottlingIsReportedWithTheTimeToWait(t *testing.T) {
	scenario := ecssim.Scenario{
		Quotas: map[string]ecssim.Quota{"DeleteImage": {Limit: 1, Window: ecssim.Duration(1000 * time.Hour)}},
		Images: []ecssim.Image{image("m-bp1", nil), image("m-bp2", nil)},
	}
	forEachCaller(t, scenario, goodKey, func(t *testing.T, simulator *ecssim.Server, c caller) {
		if _, err := c.deleteImage("m-bp1", false); err != nil {
			t.Errorf("within the quota: %v", err)
		}
		_, err := c.deleteImage("m-bp2", false)
		if wait := expectRefusal(t, err, 400, "Throttling"); wait <= 0 || wait > 1000*time.Hour {
			t.Errorf("wait for %s", wait)
		}
		if _, found := simulator.Image("m-bp2"); !found || lastCall(t, simulator).Code != "Throttling" {
			t.Errorf("record %+v", lastCall(t, simulator))
		}
	})
}
