package registry_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/sample"
)

// promiseView is the sample register in which some services verify no stamp.
func promiseView(t *testing.T, unverified ...string) *registry.View {
	t.Helper()
	b := registry.NewBuilder(nil, 0)
	put := func(kind registry.Kind, id string, v any) {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Put(&registry.Record{Kind: kind, ID: id, Revision: 1, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range append(sample.Records(time.Now()), registry.Credential{Thumbprint: "hQ7m3Ca_ZyE9Q0DcDqUOfKbOoLkHsFAY3lmSAZYm5gA", ABN: sample.Bluegum}) {
		switch x := r.(type) {
		case registry.Service:
			for _, key := range unverified {
				if x.Key == key {
					x.StampVerified = false
				}
			}
			put(registry.KindService, x.Key, x)
		case registry.Entity:
			put(registry.KindEntity, x.ABN.String(), x)
		case registry.Product:
			put(registry.KindProduct, x.ID, x)
		case registry.ClientApp:
			put(registry.KindClientApp, x.ClientID, x)
		case registry.Subscription:
			put(registry.KindSubscription, x.SSID, x)
		case registry.Credential:
			put(registry.KindCredential, x.Thumbprint, x)
		}
	}
	v, err := b.View(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestServicesWithoutAStampAreNamed(t *testing.T) {
	v := promiseView(t, "piitr.get", "receipts.get", "payevnt.0004.submit")
	for name, x := range map[string]struct {
		kind      registry.Kind
		id        string
		emergency bool
		want      []string
	}{
		"product":                       {registry.KindProduct, "FP-1003", false, []string{"payevnt.0004.submit", "piitr.get"}},
		"product, nothing may pass":     {registry.KindProduct, "FP-1003", true, []string{"payevnt.0004.submit", "piitr.get", "receipts.get"}},
		"version":                       {registry.KindVersion, "FP-1003@7.1", false, []string{"payevnt.0004.submit", "piitr.get"}},
		"app in production":             {registry.KindClientApp, "fp-1001-prod", false, []string{"payevnt.0004.submit", "receipts.get"}},
		"app in test":                   {registry.KindClientApp, "fp-1001-evte", false, []string{"payevnt.0004.submit", "piitr.get", "receipts.get"}},
		"subscription":                  {registry.KindSubscription, "0000123400", false, []string{"payevnt.0004.submit", "piitr.get"}},
		"entity that hosts products":    {registry.KindEntity, "73000000606", false, []string{"payevnt.0004.submit", "piitr.get"}},
		"entity without any":            {registry.KindEntity, "56000001313", false, []string{}},
		"credential of a host":          {registry.KindCredential, "hQ7m3Ca_ZyE9Q0DcDqUOfKbOoLkHsFAY3lmSAZYm5gA", false, []string{"payevnt.0004.submit", "piitr.get", "receipts.get"}},
		"service":                       {registry.KindService, "piitr.get", false, []string{"piitr.get"}},
		"service, also while suspended": {registry.KindService, "receipts.get", false, []string{"receipts.get"}},
		"service that verifies":         {registry.KindService, "abr.lookup", true, []string{}},
		"nobody":                        {registry.KindProduct, "FP-9999", true, []string{}},
	} {
		if diff := cmp.Diff(x.want, v.P1Only(registry.SubjectRef{Kind: x.kind, ID: x.id}, x.emergency, true)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if got := promiseView(t).P1Only(registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1002"}, true, true); len(got) > 0 {
		t.Errorf("with stamps everywhere: %v", got)
	}
	if got := promiseView(t).P1Only(registry.SubjectRef{Kind: registry.KindService, ID: "abr.lookup"}, true, false); len(got) != 1 {
		t.Errorf("with stamps, and no wait for them: %v", got)
	}
}
