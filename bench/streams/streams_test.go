package streams

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dspgate/dspgate/anomaly"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func rows(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// spiky is a wave of n values with one spike.
func spiky(n, spike int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = 100 + 10*math.Sin(float64(i)/20) + float64(i*7919%13)
	}
	v[spike] = 900
	return v
}

func TestNABWritesAScoreForEveryRow(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	var b strings.Builder
	fmt.Fprintln(&b, "timestamp,value")
	for i, v := range spiky(1000, 800) {
		fmt.Fprintf(&b, "2024-01-%02d %02d:%02d:00,%v\n", 1+i/288, i%288/12, i%12*5, v)
	}
	put(t, filepath.Join(dir, "made", "a.csv"), b.String())
	tally, err := NAB(dir, out, anomaly.DefaultParameters())
	if err != nil {
		t.Fatal(err)
	}
	if tally.Files != 1 || tally.Observations != 1000 {
		t.Errorf("tally %+v", tally)
	}
	got := rows(t, filepath.Join(out, "made", "a.csv"))
	if len(got) != 1001 || got[0] != "timestamp,value,anomaly_score" {
		t.Fatalf("%d rows, header %q", len(got), got[0])
	}
	if !strings.HasPrefix(got[801], "2024-01-03 18:40:00,900,0.9999") {
		t.Errorf("the spike's row is %q, want a score near 1", got[801])
	}
	if !strings.HasSuffix(got[1], ",0") {
		t.Errorf("the first row is %q, want the score 0", got[1])
	}
}

// What comes later changes no score, and neither do the labels.
func TestScoresDependOnThePastOnly(t *testing.T) {
	dir := t.TempDir()
	values := spiky(1200, 1000)
	score := func(n int, labels string) []string {
		in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		var b strings.Builder
		fmt.Fprintln(&b, "value")
		for _, v := range values[:n] {
			fmt.Fprintln(&b, v)
		}
		put(t, filepath.Join(in, "k.csv"), b.String())
		put(t, filepath.Join(in, "labels.json"), `{"k":{"start":1472918400,"interval":300`+labels+`}}`)
		if _, err := KPI(in, out, anomaly.DefaultParameters()); err != nil {
			t.Fatal(err)
		}
		return rows(t, filepath.Join(out, "k.csv"))
	}
	long, short := score(1200, `,"anomalies":[[5,9]],"train_n":600`), score(1001, "")
	for i := range short {
		if short[i] != long[i] {
			t.Fatalf("row %d scores %s, and %s with more behind it", i, short[i], long[i])
		}
	}
}

func TestBadFoldersAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		path, text, want string
	}{
		"a value that is none": {"c/a.csv", "timestamp,value\n2024-01-01 00:00:00,1\n2024-01-01 00:05:00,x\n", `a.csv:3: value "x" is not a number`},
		"a time that is none":  {"c/a.csv", "timestamp,value\nyesterday,1\n", `a.csv:2: timestamp "yesterday"`},
		"no value column":      {"c/a.csv", "timestamp,size\n", "no column value"},
		"a row cut short":      {"c/a.csv", "timestamp,value\n2024-01-01 00:00:00\n", "a.csv:2: no value"},
		"nothing to score":     {"c/a.txt", "", "holds no .csv file"},
	} {
		dir := t.TempDir()
		put(t, filepath.Join(dir, c.path), c.text)
		if _, err := NAB(dir, t.TempDir(), anomaly.DefaultParameters()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := NAB(filepath.Join(t.TempDir(), "none"), t.TempDir(), anomaly.DefaultParameters()); err == nil {
		t.Error("a folder that is not there is scored")
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "k.csv"), "value\n1\n")
	if _, err := KPI(dir, t.TempDir(), anomaly.DefaultParameters()); err == nil || !strings.Contains(err.Error(), "labels.json") {
		t.Errorf("without labels.json: %v", err)
	}
}

func TestValuesLeftOutScoreNothing(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	put(t, filepath.Join(dir, "k.csv"), "value\n1\n\"\"\n1e999\n2\n")
	put(t, filepath.Join(dir, "labels.json"), `{"k":{"start":0,"interval":60}}`)
	if _, err := KPI(dir, out, anomaly.DefaultParameters()); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, filepath.Join(out, "k.csv")); strings.Join(got, " ") != "anomaly_score 0 0 0 0" {
		t.Errorf("%v", got)
	}
}
