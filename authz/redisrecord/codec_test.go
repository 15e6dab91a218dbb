package redisrecord

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

func unpackAll(b []byte) (all []authz.Record, err error) {
	err = unpack(b, func(r *authz.Record) bool { all = append(all, *r); return true })
	return all, err
}

func drawRecord(t *rapid.T) authz.Record {
	name := rapid.StringMatching(`[ -~é]{0,12}`)
	var client, ssid, subject authz.Hash
	if rapid.Bool().Draw(t, "subject") {
		copy(subject[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "subject hash"))
	}
	if rapid.Bool().Draw(t, "client") {
		copy(client[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "client hash"))
	}
	if rapid.Bool().Draw(t, "ssid") {
		copy(ssid[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "ssid hash"))
	}
	at := time.UnixMilli(rapid.Int64Range(0, 1<<43).Draw(t, "at"))
	return authz.Record{
		ID: authz.NewIDs().Next(at), At: registry.At(at),
		Reason:      authz.Reason(rapid.IntRange(0, int(authz.NReasons)-1).Draw(t, "reason")),
		Revision:    registry.Revision(rapid.Uint64().Draw(t, "revision")),
		Environment: registry.Environment(rapid.IntRange(0, 3).Draw(t, "environment")),
		Service:     name.Draw(t, "service"), Route: name.Draw(t, "route"), ProductID: name.Draw(t, "product"),
		Version: name.Draw(t, "version"), ClientID: name.Draw(t, "client id"),
		Holder: registry.ABN(rapid.Uint64().Draw(t, "holder")), Suspension: name.Draw(t, "suspension"),
		ClientHash: client, SSIDHash: ssid, SubjectHash: subject, Limit: name.Draw(t, "limit"), Shadow: name.Draw(t, "shadow"),
	}
}

func TestPackedBatchesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sidecar := rapid.StringMatching(`[a-z0-9-]{0,10}`).Draw(t, "sidecar")
		want := rapid.SliceOfN(rapid.Custom(drawRecord), 1, entryMax).Draw(t, "batch")
		for i := range want {
			want[i].Sidecar = sidecar
		}
		got, err := unpackAll(pack(nil, want))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	})
}

// ordinary makes a full batch as a busy product makes it.
func ordinary(ids *authz.IDs, at time.Time) []authz.Record {
	batch := make([]authz.Record, entryMax)
	for i := range batch {
		batch[i] = authz.Record{
			ID: ids.Next(at), At: registry.At(at), Revision: 1234, Environment: registry.PROD, Service: "payevnt.0004.submit",
			Route: "POST /lodgments/v1/payroll-events", ProductID: fmt.Sprintf("FP-%d", 1000+i%7), Version: "5.0", ClientID: fmt.Sprintf("fp-%d-prod", 1000+i%7),
			Holder: 65000000101, ClientHash: authz.Hash{byte(i), 1}, SSIDHash: authz.Hash{byte(i), 2}, Sidecar: "sidecar-1",
		}
	}
	return batch
}

func TestFullBatchIsSmall(t *testing.T) {
	if n := len(pack(nil, ordinary(authz.NewIDs(), time.Now()))); n > 100*entryMax {
		t.Errorf("%d bytes for %d records", n, entryMax)
	}
}

func FuzzUnpack(f *testing.F) {
	at := time.UnixMilli(1_800_000_000_000)
	f.Add(pack(nil, ordinary(authz.NewIDs(), at)[:3]))
	f.Add(pack(nil, []authz.Record{{ID: authz.NewIDs().Next(at)}}))
	f.Add([]byte{formatVersion, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := unpackAll(b)
		if err != nil || len(got) == 0 {
			return
		}
		// What is accepted means the same when it is written again.
		again, err := unpackAll(pack(nil, got))
		if err != nil {
			t.Fatalf("accepted, but not what it was packed to: %v", err)
		}
		if d := cmp.Diff(got, again); d != "" {
			t.Fatal(d)
		}
		for i := range got {
			if got[i].Reason >= authz.NReasons || got[i].Environment > registry.PROD {
				t.Fatalf("out of range: %+v", got[i])
			}
			if _, err := authz.ParseDecisionID(got[i].ID.String()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkPack(b *testing.B) {
	batch := ordinary(authz.NewIDs(), time.Now())
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = pack(buf[:0], batch)
	}
	b.ReportMetric(float64(len(buf))/float64(len(batch)), "bytes/record")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/record")
}
