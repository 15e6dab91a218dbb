package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/authz/token/issue"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/sample"
)

type tokenOptions struct {
	dir, clientID, abn, softwareID, clientABN, scope, notBefore, cnf, alg string
	expires                                                               time.Duration
	claims                                                                []string
}

func newTokenCmd(_ *globals) *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print an access token of a running demo's sandbox issuer",
		Long: "Prints an access token signed by a running demo's sandbox issuer. Claims that are not stated\n" +
			"are filled in from the register: the holder is the product's owner, the software ID is that of\n" +
			"the product's subscription for the client. An empty --abn, --software-id or --client-abn leaves the claim out.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, err := mintToken(cmd.Context(), o, cmd.Flags().Changed, time.Now())
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), raw)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", ".run", "folder of the running demo")
	f.StringVar(&o.clientID, "client-id", "", "client_id of the client app, such as fp-1003-prod")
	f.StringVar(&o.abn, "abn", "", "ABN of the holder of the credential")
	f.StringVar(&o.softwareID, "software-id", "", "software ID (SSID) of the client's subscription")
	f.StringVar(&o.clientABN, "client-abn", "", "ABN on whose behalf")
	f.StringVar(&o.scope, "scope", "", "space-separated scopes")
	f.DurationVar(&o.expires, "expires", 5*time.Minute, "how long from now the token is valid; negative: expired so long ago")
	f.StringVar(&o.notBefore, "not-before", "", "nbf, as a duration from now or an RFC 3339 date-time")
	f.StringVar(&o.cnf, "cnf", "", "PEM certificate to bind the token to (cnf.x5t#S256)")
	f.StringVar(&o.alg, "alg", demoAlgorithms[0], "signature algorithm: "+strings.Join(demoAlgorithms, ", "))
	f.StringArrayVar(&o.claims, "claim", nil, "further claim k=v, v being JSON or else a string; may be repeated, and replaces what is filled in")
	return cmd
}

func mintToken(ctx context.Context, o tokenOptions, stated func(string) bool, now time.Time) (string, error) {
	if o.clientID == "" {
		return "", usageError("--client-id is needed, such as fp-1003-prod")
	}
	if !slices.Contains(demoAlgorithms, o.alg) {
		return "", usageError("--alg %s: the demo's issuer signs with %s", o.alg, strings.Join(demoAlgorithms, ", "))
	}
	info, err := readDemoInfo(o.dir)
	if err != nil {
		return "", err
	}
	if err := o.fill(ctx, info, stated); err != nil {
		return "", err
	}
	claims := map[string]any{
		"iss": info.Issuer, "aud": info.Audience, "sub": o.clientID, "client_id": o.clientID, "jti": randomHex(16),
		"iat": now.Unix(), "exp": now.Add(o.expires).Unix(),
	}
	if o.expires <= 0 { // it was valid once
		claims["iat"] = now.Add(o.expires - 5*time.Minute).Unix()
	}
	for name, val := range map[string]string{"abn": o.abn, "software_id": o.softwareID, "client_abn": o.clientABN, "scope": o.scope} {
		if val != "" {
			claims[name] = strings.ReplaceAll(val, " ", "")
			if name == "scope" {
				claims[name] = val
			}
		}
	}
	if o.notBefore != "" {
		at, err := time.Parse(time.RFC3339, o.notBefore)
		if d, derr := time.ParseDuration(o.notBefore); derr == nil {
			at = now.Add(d)
		} else if err != nil {
			return "", usageError("--not-before %s: write a duration such as 1m, or an RFC 3339 date-time", o.notBefore)
		}
		claims["nbf"] = at.Unix()
	}
	if o.cnf != "" {
		cert, err := readCertificate(o.cnf)
		if err != nil {
			return "", usageError("--cnf: %v", err)
		}
		claims["cnf"] = map[string]any{"x5t#S256": x5tS256(cert)}
	}
	for _, kv := range o.claims {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return "", usageError("--claim %s: write name=value", kv)
		}
		var val any
		dec := json.NewDecoder(strings.NewReader(v))
		dec.UseNumber()
		if dec.Decode(&val) != nil || dec.More() {
			val = v
		}
		claims[k] = val
	}
	signer, err := issue.Load(issuerKeyPath(o.dir, o.alg))
	if err != nil {
		return "", err
	}
	return signer.Sign(nil, claims)
}

// fill takes from the register what was not stated: over the control plane, or
// from the sample data when that is down, so that a token can still be had.
func (o *tokenOptions) fill(ctx context.Context, info *demoInfo, stated func(string) bool) error {
	if stated("abn") && stated("software-id") && stated("client-abn") {
		return nil
	}
	reg, err := lookUp(ctx, info, o.clientID)
	if err != nil {
		fmt.Fprintf(os.Stderr, "dspgate token: the control plane does not answer (%v); claims are filled in from the sample data\n", err)
		reg = sampleLookUp(o.clientID)
	}
	if reg == nil {
		fmt.Fprintf(os.Stderr, "dspgate token: no client app %s in the register; only what you stated is claimed\n", o.clientID)
		return nil
	}
	if !stated("abn") {
		o.abn = reg.product.Owner.String()
	}
	// The first subscription that fits what was stated.
	for _, s := range reg.subscriptions {
		fitsSSID := !stated("software-id") || o.softwareID == s.SSID
		fitsClient := !stated("client-abn") || strings.ReplaceAll(o.clientABN, " ", "") == s.ClientABN.String()
		if !fitsSSID || !fitsClient {
			continue
		}
		if !stated("software-id") {
			o.softwareID = s.SSID
		}
		if !stated("client-abn") {
			o.clientABN = s.ClientABN.String()
		}
		return nil
	}
	return nil
}

// lookedUp is what the register says of a client app.
type lookedUp struct {
	product       registry.Product
	subscriptions []registry.Subscription
}

func lookUp(ctx context.Context, info *demoInfo, clientID string) (*lookedUp, error) {
	var app registry.ClientApp
	var out lookedUp
	found, err := getData(ctx, info, "/v1/client-apps/"+url.PathEscape(clientID), &app)
	if err != nil || !found {
		return nil, err
	}
	if found, err = getData(ctx, info, "/v1/products/"+url.PathEscape(app.ProductID), &out.product); err != nil || !found {
		return nil, err
	}
	_, err = getData(ctx, info, "/v1/subscriptions?limit=100&product_id="+url.QueryEscape(app.ProductID), &out.subscriptions)
	return &out, err
}

// getData reads the data of one answer; found is false when there is none.
func getData(ctx context.Context, info *demoInfo, path string, data any) (found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, info.Control+path, nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Authorization", "Bearer "+info.OperatorToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, errors.New("connection failed")
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusUnprocessableEntity:
		return false, nil
	case http.StatusOK:
	default:
		return false, fmt.Errorf("status %d", resp.StatusCode)
	}
	return true, json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 4<<20)).Decode(&struct {
		Data any `json:"data"`
	}{data})
}

func sampleLookUp(clientID string) *lookedUp {
	records := sample.Records(time.Now())
	var productID string
	for _, r := range records {
		if a, ok := r.(registry.ClientApp); ok && a.ClientID == clientID {
			productID = a.ProductID
		}
	}
	if productID == "" {
		return nil
	}
	out := &lookedUp{}
	for _, r := range records {
		switch x := r.(type) {
		case registry.Product:
			if x.ID == productID {
				out.product = x
			}
		case registry.Subscription:
			if x.ProductID == productID {
				out.subscriptions = append(out.subscriptions, x)
			}
		}
	}
	return out
}

// readDemoInfo reads DIR/demo.json.
func readDemoInfo(dir string) (*demoInfo, error) {
	b, err := os.ReadFile(filepath.Join(dir, "demo.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no demo runs in %s: start one with 'make run', or name its folder with --dir", dir)
	}
	if err != nil {
		return nil, err
	}
	info := new(demoInfo)
	if err := json.Unmarshal(b, info); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "demo.json"), err)
	}
	return info, nil
}
