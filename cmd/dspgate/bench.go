package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/bench/streams"
)

func newBenchCmd(g *globals) *cobra.Command {
	return parent("bench", "Measure this build", newBenchDetectCmd(g))
}

func newBenchDetectCmd(g *globals) *cobra.Command {
	var nab, kpi, out string
	cmd := &cobra.Command{
		Use: "detect (--nab DIR | --kpi DIR) --out DIR", Short: "Score recorded streams with the shipped scorer",
		Long: `Score every recorded stream in a folder with the shipped parameters, value by
value, and write what a benchmark's scorer reads: the same path under --out with
the column anomaly_score, one minus the tail probability of that value.

--nab takes a folder of CATEGORY/FILE.csv with the columns timestamp and value,
--kpi one of ID.csv with the column value and a labels.json that says when each
starts and its interval. Labels are not read.`,
		Example: "  dspgate bench detect --nab nab/data --out results",
		Args:    exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			if (nab == "") == (kpi == "") {
				return usageError("say what to score: either --nab DIR or --kpi DIR")
			}
			if out == "" {
				return usageError("say where the results go: --out DIR")
			}
			score, dir := streams.NAB, nab
			if kpi != "" {
				score, dir = streams.KPI, kpi
			}
			t, err := score(dir, out, anomaly.DefaultParameters())
			if err != nil {
				return err
			}
			fmt.Fprintf(g.stdout, "%d streams, %d observations, %.0f ns each\n", t.Files, t.Observations, t.NsPerObservation())
			return nil
		},
	}
	cmd.Flags().StringVar(&nab, "nab", "", "folder like the Numenta Anomaly Benchmark's data")
	cmd.Flags().StringVar(&kpi, "kpi", "", "folder of KPI streams")
	cmd.Flags().StringVar(&out, "out", "", "folder for the results")
	return cmd
}
