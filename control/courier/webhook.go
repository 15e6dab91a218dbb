package courier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/dspgate/dspgate/internal/outbound"
	"github.com/dspgate/dspgate/registry/outbox"
)

// Webhook posts to the URLs that entities named, signed as Standard Webhooks
// says: webhook-id, webhook-timestamp, webhook-signature. It is an
// outbox.Courier.
type Webhook struct {
	client *http.Client
	sign   *webhooks.Webhook
}

// NewWebhook makes a Webhook that signs with a secret of at least 24 bytes. It
// connects to public addresses, and to those of allow besides.
func NewWebhook(secret []byte, allow ...netip.Prefix) (*Webhook, error) {
	if len(secret) < 24 {
		return nil, errors.New("webhook: the signing secret needs at least 24 bytes")
	}
	sign, err := webhooks.NewWebhookRaw(secret)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	return &Webhook{sign: sign, client: &http.Client{
		Timeout: 20 * time.Second,
		// A redirect could lead anywhere, with the body.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: outbound.Dialer(5*time.Second, allow...), TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 15 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, DisableCompression: true, DisableKeepAlives: true,
		},
	}}, nil
}

// Deliver posts one message. 2xx is taken; 410 Gone and what the URL can never
// answer well are permanent.
func (w *Webhook) Deliver(ctx context.Context, x *outbox.Message) error {
	now := time.Now()
	body := []byte(x.Body)
	signature, err := w.sign.Sign(x.ID, now, body)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.To, strings.NewReader(x.Body))
	if err != nil {
		return fmt.Errorf("webhook: %w: %w", err, outbox.ErrPermanent)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "dspgate")
	req.Header.Set(webhooks.HeaderWebhookID, x.ID)
	req.Header.Set(webhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(webhooks.HeaderWebhookSignature, signature)
	resp, err := w.client.Do(req)
	if err != nil {
		if errors.Is(err, outbound.ErrNotPublic) {
			return fmt.Errorf("webhook: %w: %w", err, outbox.ErrPermanent)
		}
		return fmt.Errorf("webhook: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // what it says does not matter
	switch {
	case resp.StatusCode/100 == 2:
		return nil
	case resp.StatusCode == http.StatusGone:
		return fmt.Errorf("webhook: answered %d: %w", resp.StatusCode, outbox.ErrPermanent)
	}
	return fmt.Errorf("webhook: answered %d", resp.StatusCode)
}
