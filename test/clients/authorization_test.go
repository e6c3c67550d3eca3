package clients

import (
	"net/http"
	"testing"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

func TestTheOperatorsAuthorizationEqualsDarabonbasForTheSameInput(t *testing.T) {
	for name, parameters := range map[string]map[string]string{
		"plain values":           {"ImageId": "m-bp1", "Force": "true"},
		"values to be encoded":   {"ImageName": "a b*c~d+e/f&g=h%i,ä", "Description": "line\nfeed"},
		"names to be encoded":    {"Tag.1.Key": "team", "Tag.1.Value": "web/1", "Filter.10.Key": "x", "Filter.9.Key": "y"},
		"an empty value":         {"ImageFamily": ""},
		"values of many scripts": {"ImageName": "镜像-ü-🙂"},
	} {
		for kind, key := range map[string]ecssim.AccessKey{
			"a key":           goodKey,
			"a temporary key": {ID: "STS.id", Secret: "temporary-secret", SecurityToken: "token+/="},
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				theirs := captureDarabonba(t, key, "DeleteImage", parameters)
				ours, err := http.NewRequestWithContext(t.Context(), theirs.method,
					"http://"+theirs.host+"/?"+theirs.query.Encode(), http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				for name, value := range theirs.headers {
					ours.Header.Set(name, value)
				}
				openapi.Sign(ours, nil, openapi.Credentials{
					AccessKeyID: key.ID, AccessKeySecret: key.Secret, SecurityToken: key.SecurityToken})
				if got := ours.Header.Get("Authorization"); got != theirs.authorization {
					t.Errorf("got  %s\nwant %s", got, theirs.authorization)
				}
			})
		}
	}
}
