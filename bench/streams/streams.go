// Package streams scores recorded streams from folders and writes result files
// as the scorers of public benchmarks read them. A stream is scored value by
// value, as it would be live: nothing of the file is looked at beforehand.
package streams

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dspgate/dspgate/anomaly"
)

// Tally is what scoring cost: the processor's time in the scorer alone, not in files.
type Tally struct {
	Files, Observations int
	Spent               time.Duration
}

func (t *Tally) add(n int, spent time.Duration) {
	t.Files++
	t.Observations += n
	t.Spent += spent
}

// NsPerObservation is the scorer's time for one value.
func (t Tally) NsPerObservation() float64 {
	if t.Observations == 0 {
		return 0
	}
	return float64(t.Spent.Nanoseconds()) / float64(t.Observations)
}

// column is one stream in memory: instants and values, row by row.
type column struct {
	stamps []string // as written, where the file has any
	at     []int64
	values []float64
}

// score is one minus the tail probability of every row, 0 where nothing is known.
func (c *column) score(scorer *anomaly.Scorer) ([]float64, time.Duration) {
	scores := make([]float64, len(c.values))
	var x anomaly.Series
	begin := processorTime()
	for i, v := range c.values {
		s := scorer.Observe(&x, c.at[i], v)
		scores[i] = 1 - s.P
	}
	return scores, processorTime() - begin
}

// processorTime is what this process has used: on a busy machine the clock on
// the wall would count its neighbours.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// NAB scores every CATEGORY/FILE.csv under dir, of columns timestamp and value,
// into the same path under out, with anomaly_score beside them.
func NAB(dir, out string, p anomaly.Parameters) (Tally, error) {
	var t Tally
	err := eachCSV(dir, func(path, rel string) error {
		c, err := readStamped(path)
		if err != nil {
			return err
		}
		scores, spent := c.score(anomaly.NewScorer(p))
		t.add(len(scores), spent)
		return write(filepath.Join(out, rel), func(w *bufio.Writer) {
			fmt.Fprintln(w, "timestamp,value,anomaly_score")
			for i, s := range scores {
				fmt.Fprintf(w, "%s,%v,%v\n", c.stamps[i], c.values[i], s)
			}
		})
	})
	return t, err
}

// KPI scores every ID.csv in dir, of one column value, into out/ID.csv with the
// one column anomaly_score. Of labels.json beside them it reads when each stream
// starts and its interval, and nothing else.
func KPI(dir, out string, p anomaly.Parameters) (Tally, error) {
	var t Tally
	clocks, err := readClocks(filepath.Join(dir, "labels.json"))
	if err != nil {
		return t, err
	}
	err = eachCSV(dir, func(path, rel string) error {
		clock, ok := clocks[strings.TrimSuffix(filepath.Base(rel), ".csv")]
		if !ok {
			return fmt.Errorf("%s: labels.json does not say when it starts", path)
		}
		c, err := readValues(path, clock)
		if err != nil {
			return err
		}
		scores, spent := c.score(anomaly.NewScorer(p))
		t.add(len(scores), spent)
		return write(filepath.Join(out, rel), func(w *bufio.Writer) {
			fmt.Fprintln(w, "anomaly_score")
			for _, s := range scores {
				fmt.Fprintf(w, "%v\n", s)
			}
		})
	})
	return t, err
}

// eachCSV visits the CSV files under dir in order; a folder without any is an error.
func eachCSV(dir string, visit func(path, rel string) error) error {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".csv") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("%s holds no .csv file", dir)
	}
	slices.Sort(paths)
	for _, path := range paths {
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if err := visit(path, rel); err != nil {
			return err
		}
	}
	return nil
}

func readStamped(path string) (*column, error) {
	c := &column{}
	err := readRows(path, []string{"timestamp", "value"}, func(f []string) error {
		at, err := parseTime(f[0])
		if err != nil {
			return err
		}
		v, err := parseValue(f[1])
		if err != nil {
			return err
		}
		c.stamps, c.at, c.values = append(c.stamps, f[0]), append(c.at, at), append(c.values, v)
		return nil
	})
	return c, err
}

func readValues(path string, k clock) (*column, error) {
	c, at := &column{}, k.Start
	err := readRows(path, []string{"value"}, func(f []string) error {
		v, err := parseValue(f[0])
		if err != nil {
			return err
		}
		c.at, c.values = append(c.at, at), append(c.values, v)
		at += k.Interval
		return nil
	})
	return c, err
}

// readRows hands the wanted columns of every row to take.
func readRows(path string, want []string, take func(fields []string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := csv.NewReader(bufio.NewReader(f))
	r.FieldsPerRecord = -1
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return fmt.Errorf("%s: no header: %w", path, err)
	}
	at := make([]int, len(want))
	for i, name := range want {
		if at[i] = slices.IndexFunc(header, func(h string) bool { return strings.TrimSpace(h) == name }); at[i] < 0 {
			return fmt.Errorf("%s: no column %s", path, name)
		}
	}
	fields := make([]string, len(want))
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		line, _ := r.FieldPos(0)
		for i, k := range at {
			if k >= len(rec) {
				return fmt.Errorf("%s:%d: no %s", path, line, want[i])
			}
			fields[i] = strings.Clone(strings.TrimSpace(rec[k]))
		}
		if err := take(fields); err != nil {
			return fmt.Errorf("%s:%d: %w", path, line, err)
		}
	}
}

// parseValue reads a number; a value left out is not one.
func parseValue(s string) (float64, error) {
	if s == "" {
		return math.NaN(), nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("value %q is not a number", s)
	}
	return v, nil
}

func parseTime(s string) (int64, error) {
	for _, layout := range []string{"2006-01-02 15:04:05", time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.Unix(), nil
		}
	}
	return 0, fmt.Errorf("timestamp %q is not like 2006-01-02 15:04:05", s)
}

// clock is when a stream without timestamps starts, and its interval, in seconds.
type clock struct {
	Start    int64 `json:"start"`
	Interval int64 `json:"interval"`
}

func readClocks(path string) (map[string]clock, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var clocks map[string]clock
	if err := json.Unmarshal(b, &clocks); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return clocks, nil
}

func write(path string, fill func(w *bufio.Writer)) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	fill(w)
	return errors.Join(w.Flush(), f.Close())
}
