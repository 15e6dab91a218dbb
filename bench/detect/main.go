// Command detect measures the anomaly scorer on labelled public streams: it
// scores them with the shipped parameters, and again with every parameter moved
// by up to a tenth, and lets the scorers beside the data judge.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/bench/report"
	"github.com/dspgate/dspgate/bench/streams"
)

type options struct {
	detection, out string
	jitters        int
	seed           uint64
}

func main() {
	var o options
	flag.StringVar(&o.detection, "detection", "../shared/detection", "folder of nab/, kpi/, nabscore/ and kpiscore/")
	flag.StringVar(&o.out, "out", "bench/out", "folder for detect.json")
	flag.IntVar(&o.jitters, "jitters", 20, "times every parameter is moved by up to a tenth")
	flag.Uint64Var(&o.seed, "seed", 1, "of how they are moved")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-detect:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.jitters < 1 {
		return errors.New("needs at least one jitter")
	}
	tmp, err := os.MkdirTemp("", "bench-detect-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	j := judge{detection: o.detection, tmp: tmp}
	if err := j.build(ctx); err != nil {
		return err
	}
	rep := report.New()
	figures, err := j.shipped(ctx)
	if err != nil {
		return err
	}
	rep.Figures = figures
	rep.Row(map[string]any{"parameters": "shipped", "standard": figures["nab_standard"], "low_fp": figures["nab_low_fp"], "low_fn": figures["nab_low_fn"]})

	r := rand.New(rand.NewPCG(o.seed, 0))
	var standard []float64
	for i := range o.jitters {
		n, _, err := j.nab(ctx, jitter(anomaly.DefaultParameters(), r))
		if err != nil {
			return err
		}
		standard = append(standard, n.standard)
		rep.Row(map[string]any{"parameters": fmt.Sprintf("jitter %d", i+1), "standard": n.standard, "low_fp": n.lowFP, "low_fn": n.lowFN})
	}
	rep.Figures["jitter_mean"], rep.Figures["jitter_sd"] = meanSD(standard)
	if err := rep.Table(os.Stdout, "parameters", "standard", "low_fp", "low_fn"); err != nil {
		return err
	}
	return rep.Save(o.out, "detect")
}

// jitter moves every parameter by up to a tenth, each by itself.
func jitter(p anomaly.Parameters, r *rand.Rand) anomaly.Parameters {
	v := reflect.ValueOf(&p).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		f.SetFloat(f.Float() * (0.9 + 0.2*r.Float64()))
	}
	return p
}

func meanSD(x []float64) (mean, sd float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		sd += (v - mean) * (v - mean) / float64(len(x))
	}
	return mean, math.Sqrt(sd)
}

// judge runs the scorers, which are programs of their own.
type judge struct{ detection, tmp string }

func (j judge) build(ctx context.Context) error {
	for _, name := range []string{"nabscore", "kpiscore"} {
		bin, err := filepath.Abs(filepath.Join(j.tmp, name))
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, ".")
		cmd.Dir = filepath.Join(j.detection, name)
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", cmd.Dir, err, text)
		}
	}
	return nil
}

// shipped are the figures of the shipped parameters.
func (j judge) shipped(ctx context.Context) (map[string]float64, error) {
	p := anomaly.DefaultParameters()
	n, cost, err := j.nab(ctx, p)
	if err != nil {
		return nil, err
	}
	point, event, more, err := j.kpi(ctx, p)
	if err != nil {
		return nil, err
	}
	cost.Observations += more.Observations
	cost.Spent += more.Spent
	return map[string]float64{
		"nab_standard": n.standard, "nab_low_fp": n.lowFP, "nab_low_fn": n.lowFN,
		"kpi_point_f1": point, "kpi_event_f1": event,
		"ns_per_observation": cost.NsPerObservation(), "bytes_per_series": float64(unsafe.Sizeof(anomaly.Series{})),
	}, nil
}

type nabScore struct{ standard, lowFP, lowFN float64 }

func (j judge) nab(ctx context.Context, p anomaly.Parameters) (nabScore, streams.Tally, error) {
	out := filepath.Join(j.tmp, "nab")
	cost, err := streams.NAB(filepath.Join(j.detection, "nab", "data"), out, p)
	if err != nil {
		return nabScore{}, cost, err
	}
	text, err := j.score(ctx, "nabscore", "-labels", filepath.Join(j.detection, "nab", "windows.json"), "-results", out, "-json")
	if err != nil {
		return nabScore{}, cost, err
	}
	var profiles []struct {
		Profile string
		Score   float64
	}
	if err := json.Unmarshal(text, &profiles); err != nil {
		return nabScore{}, cost, fmt.Errorf("nabscore: %w", err)
	}
	got := map[string]float64{}
	for _, p := range profiles {
		got[p.Profile] = p.Score
	}
	return nabScore{got["standard"], got["reward_low_FP_rate"], got["reward_low_FN_rate"]}, cost, nil
}

var f1Line = regexp.MustCompile(`(?m)^(point|event)\s+F1 ([0-9.]+)`)

func (j judge) kpi(ctx context.Context, p anomaly.Parameters) (point, event float64, cost streams.Tally, err error) {
	out := filepath.Join(j.tmp, "kpi")
	cost, err = streams.KPI(filepath.Join(j.detection, "kpi"), out, p)
	if err != nil {
		return 0, 0, cost, err
	}
	text, err := j.score(ctx, "kpiscore", "-labels", filepath.Join(j.detection, "kpi", "labels.json"), "-results", out)
	if err != nil {
		return 0, 0, cost, err
	}
	found := f1Line.FindAllStringSubmatch(string(text), -1)
	if len(found) != 2 {
		return 0, 0, cost, fmt.Errorf("kpiscore printed no F1:\n%s", text)
	}
	for _, m := range found {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return 0, 0, cost, err
		}
		if m[1] == "point" {
			point = v
		} else {
			event = v
		}
	}
	return point, event, cost, nil
}

func (j judge) score(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(j.tmp, name), args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}
