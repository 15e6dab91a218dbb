package main

import (
	"log/slog"
	"maps"
	"math"
	"net/netip"

	"github.com/dspgate/dspgate/control/courier"
	"github.com/dspgate/dspgate/internal/config"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/incident"
	"github.com/dspgate/dspgate/registry/outbox"
)

// incidentsConfig is how incidents are worked on.
type incidentsConfig struct {
	// Officers are the mail addresses told of new incidents and of duties that run
	// out. Default none.
	Officers []string `yaml:"officers"`
	// Export is an https URL of the agency's own incident process that is told of
	// every incident, signed (Standard Webhooks). Default none.
	Export string `yaml:"export"`
	// HighRecords is from how many records on a breach is high. Default: framework.high_records.
	HighRecords int `yaml:"high_records"`
}

// outboxConfig is how messages leave. Without it they stay queued, and are told
// of as such.
type outboxConfig struct {
	// Mail is the server that takes mail; no host: none is sent.
	Mail courier.MailConfig `yaml:"mail"`
	// WebhookKeyFile holds the secret that webhooks are signed with, at least 24
	// bytes. "": none are sent.
	WebhookKeyFile string `yaml:"webhook_key_file"`
	// WebhookAllow are networks besides the public internet that webhooks may
	// reach, such as 10.20.0.0/16.
	WebhookAllow []string `yaml:"webhook_allow"`
}

// openIncidents makes the desk. A high incident opens a verification of its
// products and a late report is a finding, in the same change.
func openIncidents(cfg incidentsConfig, open certification.Open, register *registry.Register, desk *assurance.Desk) (*incident.Desk, error) {
	notices, err := incident.NewNotices(nil)
	if err != nil {
		return nil, err
	}
	d := &incident.Desk{Register: register, Thresholds: incident.DefaultThresholds(), Notices: notices, Officers: cfg.Officers, Export: cfg.Export}
	d.ByAwareness, d.Thresholds.HighRecords = open.IncidentAnchor == "aware", int(min(open.HighRecords, math.MaxInt32))
	if cfg.HighRecords > 0 {
		d.Thresholds.HighRecords = cfg.HighRecords
	}
	d.OnHigh, d.AddOns = desk.VerifyAfter, assurance.AddOnContacts
	d.OnLate = func(t *registry.Tx, product, id string) error {
		return desk.RaiseAfter(t, product, assurance.Raise{Requirement: "OSF-BRN", Severity: "medium", Text: "Incident " + id + " was reported late, or not by the entity at all."})
	}
	return d, nil
}

// openOutbox makes the worker that sends.
func openOutbox(cfg outboxConfig, register *registry.Register, log *slog.Logger) (*outbox.Worker, error) {
	w := &outbox.Worker{Register: register, Couriers: map[outbox.Means]outbox.Courier{}, Log: log}
	if cfg.Mail.Host != "" {
		m, err := courier.NewMail(cfg.Mail)
		if err != nil {
			return nil, usageError("outbox: %v", err)
		}
		w.Couriers[outbox.Mail] = m
	}
	if cfg.WebhookKeyFile != "" {
		secret, err := config.ReadSecret(cfg.WebhookKeyFile)
		if err != nil {
			return nil, usageError("outbox: webhook_key_file: %v", err)
		}
		var allow []netip.Prefix
		for _, s := range cfg.WebhookAllow {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return nil, usageError("outbox: webhook_allow: %q is no network such as 10.20.0.0/16", s)
			}
			allow = append(allow, p)
		}
		h, err := courier.NewWebhook(secret, allow...)
		if err != nil {
			return nil, usageError("outbox: %v", err)
		}
		w.Couriers[outbox.Webhook] = h
	}
	return w, nil
}

// timed has due-dates of casework.
type timed interface {
	Timers() map[registry.CaseKind]registry.FireFunc
}

// timers are all that happens by itself.
func timers(all ...timed) map[registry.CaseKind]registry.FireFunc {
	fire := map[registry.CaseKind]registry.FireFunc{}
	for _, t := range all {
		maps.Copy(fire, t.Timers())
	}
	return fire
}
