package main

import (
	"bytes"
	"encoding/json"
	"os"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/envoy/xds"
	"github.com/dspgate/dspgate/internal/config"
)

// newSidecarBootstrapCmd prints what an Envoy must know before its sidecar can
// tell it the rest.
func newSidecarBootstrapCmd() *cobra.Command {
	var file string
	var sets []string
	boot := xds.BootstrapConfig{}
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "Print the bootstrap of the Envoy beside a sidecar (JSON)",
		Long: "Print the bootstrap of the Envoy beside a sidecar, for `envoy --config-path`. It names where discovery is;\n" +
			"listeners, routes and clusters come from there. Make it again when the sidecar's listen address changes.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := defaultSidecarConfig()
			if err := config.Load(file, &cfg, os.Environ(), sets); err != nil {
				return usageError("%v", err)
			}
			if cfg.ID == "" || cfg.Listen == "" {
				return usageError("the sidecar's configuration needs id and listen")
			}
			if boot.NodeID == "" {
				boot.NodeID = cfg.ID
			}
			boot.Sidecars = append([]string{cfg.Listen}, boot.Sidecars...)
			b, err := xds.Bootstrap(boot)
			if err != nil {
				return usageError("%v", err)
			}
			// protojson puts spaces in at random, so that nobody compares its text.
			var out bytes.Buffer
			if err := json.Indent(&out, b, "", "  "); err != nil {
				return err
			}
			out.WriteByte('\n')
			_, err = out.WriteTo(cmd.OutOrStdout())
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "configuration file of the sidecar (YAML)")
	f.StringArrayVar(&sets, "set", nil, "key.path=value laid over the file; may be repeated")
	f.StringVar(&boot.NodeID, "node-id", "", "name of this Envoy in logs (default: the sidecar's id)")
	f.StringVar(&boot.Admin, "admin", "127.0.0.1:9901", "Envoy's admin page: unix:/path or a loopback address; whoever reaches it can stop Envoy")
	f.StringArrayVar(&boot.Sidecars, "fallback", nil, "listen address of another sidecar to get the configuration from when the first is gone; may be repeated")
	f.Uint32Var(&boot.MaxConnections, "max-connections", 0, "bound on the connections of all clients together (default 10000)")
	return cmd
}
