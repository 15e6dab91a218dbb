package main

import (
	"log/slog"

	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
)

// caseworkConfig is how registrations and certifications are worked on.
type caseworkConfig struct {
	// Terms are what an applicant accepts and declares. A new version is asked for
	// of whoever applies from then on. Default: a short text, version 2026.1.
	Terms casework.Terms `yaml:"terms"`
	// Standards are the service standards: how long each side has for what. Default:
	// acknowledge 48h, decide 672h, reply 336h, verify 672h, review 672h, remedy 720h, annual 8760h.
	Standards casework.Standards `yaml:"standards"`
	// PilotCalls is how many calls of each service a pilot's scenarios take. Default 1.
	PilotCalls int `yaml:"pilot_calls"`
}

// openCasework makes the desk of registrations and certifications.
func openCasework(cfg controlConfig, register *registry.Register, desk *assurance.Desk, d control.Decisions, log *slog.Logger) (*casework.Desk, error) {
	return casework.New(register, casework.Config{
		Terms: cfg.Casework.Terms, Standards: cfg.Casework.Standards, PilotCalls: cfg.Casework.PilotCalls,
		Framework: desk.Rules(), Assurance: desk, Runs: d.Runs(), Log: log,
	})
}
