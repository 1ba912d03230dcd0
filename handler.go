package main

import (
	"cmp"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/plivo/plivo-go/v7"
	"github.com/plivo/plivo-go/v7/xml"
)

// A Handler answers Plivo's requests to the answer URL, /handleincoming/, and
// a load balancer's to /healthz.
type Handler struct {
	config   func() *Config // returns the one in force; a request asks once
	verifier *Verifier      // nil: requests need no signature
	log      *slog.Logger
}

// ServeHTTP matches paths itself because http.ServeMux redirects unclean ones,
// and a redirected POST loses its form.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // an answer holds a private number
	switch r.URL.Path {
	case "/handleincoming/", "/handleincoming":
		if allow(w, r, http.MethodGet, http.MethodPost) {
			h.incoming(w, r)
		}
	case "/healthz":
		if allow(w, r, http.MethodGet, http.MethodHead) {
			_, _ = io.WriteString(w, "ok\n")
		}
	default:
		http.Error(w, "Nothing is here. The answer URL for Plivo is /handleincoming/, the health check /healthz.", http.StatusNotFound)
	}
}

func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	http.Error(w, "Use "+strings.Join(methods, " or ")+" here.", http.StatusMethodNotAllowed)
	return false
}

// maxBody is how many bytes of a form are read; Plivo sends about one KiB.
const maxBody = 64 << 10

// incoming answers a request to the answer URL: make sure that Plivo sent it,
// read the call that it describes, decide what happens with that, say so in XML.
func (h *Handler) incoming(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			h.refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the form is larger than %d KiB", maxBody>>10))
		} else {
			h.refuse(w, http.StatusBadRequest, errors.New("the query or form cannot be parsed or breaks off; escape special characters as %XX"))
		}
		return
	}
	if h.verifier != nil {
		if called, err := h.verifier.Verify(r); err != nil {
			h.log.Warn("request refused: not signed by Plivo", "reason", err, "url", redact(called))
			http.Error(w, "Only Plivo may ask here, and this request has no valid signature. The server's log says why.", http.StatusForbidden)
			return
		}
	}
	call, err := parseCall(r.Form)
	if err != nil {
		h.refuse(w, http.StatusBadRequest, err)
		return
	}
	answer := call.answer(h.config())

	w.Header().Set("Content-Type", "application/xml") // or text/xml, says https://www.plivo.com/docs/voice/xml/request
	_, _ = io.WriteString(w, xml.ResponseElement{Contents: answer.elements}.String())
	attrs := append([]slog.Attr{
		slog.String("call", redact(call.uuid)),
		slog.String("from", call.from.String()),
		slog.String("to", call.to.String()),
	}, answer.details...)
	h.log.LogAttrs(r.Context(), answer.level, answer.outcome, append(attrs, slog.Duration("took", time.Since(start)))...)
}

// refuse answers what is no call, with a reason for the person who sent it.
func (h *Handler) refuse(w http.ResponseWriter, status int, reason error) {
	h.log.Warn("request refused", "status", status, "reason", reason)
	http.Error(w, "This is the answer URL of a Plivo application, but "+reason.Error()+".\n"+
		"A call looks like /handleincoming/?From=CALLER&To=PLIVO_NUMBER, each a phone number with country code.", status)
}

// A Call is what a request says of a call.
// Source of the names: https://www.plivo.com/docs/voice/xml/request
type Call struct {
	uuid     string
	from     Number // Number{} if withheld or not a phone number
	to       Number // the Plivo number that was called
	ended    bool   // Plivo's hangup_url defaults to the answer URL
	cause    string // hangup cause, once ended
	duration string // in seconds, once ended
}

func parseCall(form url.Values) (Call, error) {
	c := Call{
		uuid:     form.Get("CallUUID"),
		cause:    cmp.Or(form.Get("HangupCause"), form.Get("HangupCauseName")),
		duration: form.Get("Duration"),
	}
	c.ended = form.Get("Event") == "Hangup" || c.cause != ""
	for _, name := range []string{"From", "To"} {
		switch {
		case c.ended:
		case len(form[name]) == 0:
			return Call{}, fmt.Errorf("the parameter %s is missing", name)
		case len(form[name]) > 1:
			return Call{}, fmt.Errorf("the parameter %s is given more than once", name)
		}
	}
	var err error
	if c.to, err = ParseNumber(form.Get("To")); err != nil && !c.ended {
		return Call{}, fmt.Errorf("the parameter To is not a phone number: %w", err)
	}
	c.from, _ = ParseNumber(form.Get("From")) // anonymous and SIP callers are calls too
	return c, nil
}

// An Answer is what Plivo is told to do, and what the log says of it.
type Answer struct {
	elements []any // of plivo-go/xml
	level    slog.Level
	outcome  string
	details  []slog.Attr
}

// answer decides what happens with a call. No answer has a Dial without a
// callerId (Plivo would then show the caller's own number) or with one other
// than the Plivo number called, nor any number but that and the one to dial.
func (c Call) answer(config *Config) Answer {
	peer, role, ok := config.Peer(c.from, c.to)
	switch {
	case c.ended:
		return Answer{nil, slog.LevelInfo, "call ended",
			[]slog.Attr{slog.String("cause", redact(c.cause)), slog.String("seconds", redact(c.duration))}}
	case c.from == c.to:
		return Answer{reject(config), slog.LevelWarn, "call rejected: the Plivo number calls itself", nil}
	case !ok:
		return Answer{reject(config), slog.LevelInfo, "call rejected: the caller is in no pairing", nil}
	case peer == c.to:
		return Answer{reject(config), slog.LevelWarn, "call rejected: the number to dial is the Plivo number called; correct that pairing", nil}
	}
	dial := new(xml.DialElement).
		SetCallerID(c.to.Digits()).
		SetContents([]any{new(xml.NumberElement).SetContents(peer.Digits())})
	if config.RingTimeout > 0 {
		dial = dial.SetTimeout(config.RingTimeout)
	}
	if config.TimeLimit > 0 {
		dial = dial.SetTimeLimit(config.TimeLimit)
	}
	elements := []any{dial}
	if message := config.ConnectingMessage; message != "" {
		elements = []any{new(xml.SpeakElement).AddSpeak(message), dial}
	}
	return Answer{elements, slog.LevelInfo, "call connected",
		[]slog.Attr{slog.String("caller", role.String()), slog.String("dialled", peer.String())}}
}

// reject ends the call unanswered, for which Plivo does not bill, unless there
// is something to say first.
func reject(config *Config) []any {
	if message := config.UnknownCallerMessage; message != "" {
		return []any{new(xml.SpeakElement).AddSpeak(message), new(xml.HangupElement)}
	}
	return []any{new(xml.HangupElement).SetReason("rejected")}
}

// A Verifier tells whether Plivo signed a request, by its signature version 3:
// https://www.plivo.com/docs/voice/concepts/signature-validation. Version 2
// does not cover the parameters and is not accepted.
type Verifier struct {
	// sign keeps the auth token where no print of a Verifier can show it.
	sign func(uri, method, nonce string, params map[string]string) string
	// public is PUBLIC_URL, without a slash at its end; "" if it is not set.
	public string
}

// NewVerifier takes the account's auth token and the base of the URL that
// Plivo calls, such as https://example.com or https://example.com/prefix; if
// publicURL is "", each request tells its own.
func NewVerifier(token, publicURL string) (*Verifier, error) {
	u, err := url.Parse(publicURL)
	if publicURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" ||
		u.User != nil || strings.ContainsAny(publicURL, "?#") || strings.Contains(u.Path, "handleincoming")) {
		return nil, errors.New("PUBLIC_URL must be the public http or https URL of this server without /handleincoming/, such as https://example.com; correct or unset it")
	}
	return &Verifier{
		sign: func(uri, method, nonce string, params map[string]string) string {
			return plivo.ComputeSignatureV3(token, uri, method, nonce, params)
		},
		public: strings.TrimRight(publicURL, "/"),
	}, nil
}

// Verify returns an error unless Plivo signed r, whose form is parsed, and the
// URL, without its query, that it takes Plivo to have called.
func (v *Verifier) Verify(r *http.Request) (called string, err error) {
	base, err := v.base(r)
	if err != nil {
		return "", err
	}
	called = base + r.URL.EscapedPath()
	nonce := r.Header.Get("X-Plivo-Signature-V3-Nonce")
	given := slices.Concat(r.Header.Values("X-Plivo-Signature-V3"), r.Header.Values("X-Plivo-Signature-Ma-V3"))
	if len(given) == 0 || nonce == "" {
		return called, errors.New("it lacks the header X-Plivo-Signature-V3 or X-Plivo-Signature-V3-Nonce (V2 does not cover the parameters)")
	}
	query, posted := r.URL.Query(), map[string]string{}
	for _, parameters := range []url.Values{query, r.PostForm} {
		for _, values := range parameters {
			if len(values) > 1 {
				return called, errors.New("it has a parameter twice, and the signature covers only the first")
			}
		}
	}
	for name, values := range r.PostForm {
		posted[name] = values[0]
	}
	// plivo-go parses the URL again. Encoding the query anew leaves nothing in
	// it that could then count as something else, such as a fragment.
	want := v.sign(called+"?"+query.Encode(), r.Method, nonce, posted)
	for signature := range strings.SplitSeq(strings.Join(given, ","), ",") {
		if hmac.Equal([]byte(strings.TrimSpace(signature)), []byte(want)) {
			return called, nil
		}
	}
	return called, errors.New("its signature does not fit: unless it is forged, PLIVO_AUTH_TOKEN is another account's, or Plivo called another URL than the one tried here (then set PUBLIC_URL)")
}

// base returns scheme and host, and a path prefix if any, of the URL that
// Plivo called. Anyone can send these headers, so they must not smuggle in a
// path or query: only a bare host may stand where the host goes.
func (v *Verifier) base(r *http.Request) (string, error) {
	if v.public != "" {
		return v.public, nil
	}
	scheme, host := "http", r.Host
	if strings.EqualFold(firstOf(r, "X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	if forwarded := firstOf(r, "X-Forwarded-Host"); forwarded != "" {
		host = forwarded
	}
	base := scheme + "://" + host
	if u, err := url.Parse(base); err != nil || host == "" || u.Host != host {
		return "", errors.New("its Host or X-Forwarded-Host header is no host")
	}
	return base, nil
}

// firstOf returns what the proxy nearest to the client wrote into a header.
func firstOf(r *http.Request, header string) string {
	first, _, _ := strings.Cut(r.Header.Get(header), ",")
	return strings.TrimSpace(first)
}
