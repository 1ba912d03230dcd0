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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plivo/plivo-go/v7"
	"github.com/plivo/plivo-go/v7/xml"
)

// A Handler answers Plivo's requests to the answer URL, /handleincoming/, and a load balancer's to /healthz.
type Handler struct {
	config    func() *Config // returns the one in force; a request asks once
	token     string         // Plivo's auth token; "" if requests need no signature
	publicURL string         // as ParsePublicURL returns it
	log       *slog.Logger
}

// ServeHTTP matches paths itself: http.ServeMux redirects unclean ones, and a redirected POST loses its form.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // an answer holds a private number
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	allow := map[string]string{ // methods by path
		"/handleincoming/": "GET, POST", "/handleincoming": "GET, POST", "/healthz": "GET, HEAD",
	}[r.URL.Path]
	switch {
	case allow == "":
		h.refuse(w, r, http.StatusNotFound,
			errors.New("nothing is here: the answer URL is /handleincoming/, the health check /healthz"))
	case !slices.Contains(strings.Split(allow, ", "), r.Method):
		w.Header().Set("Allow", allow)
		reason := fmt.Errorf("use %s here", strings.Replace(allow, ",", " or", 1))
		h.refuse(w, r, http.StatusMethodNotAllowed, reason)
	case r.URL.Path == "/healthz":
		_, _ = io.WriteString(w, "ok\n")
	default:
		h.incoming(w, r)
	}
}

const (
	maxBody       = 64 << 10 // bytes of a form; Plivo sends about 1 KiB
	maxParameters = 100      // Plivo sends some 30; plivo-go's signature takes time by the square of them
)

// incoming answers a request to the answer URL: it reads the form, makes sure that Plivo sent it, decides
// what happens with the call, and says so in XML.
func (h *Handler) incoming(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	status, err := http.StatusBadRequest, r.ParseForm()
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		status = http.StatusRequestEntityTooLarge
		err = fmt.Errorf("the form is larger than %d KiB", maxBody>>10)
	case len(r.Form) > maxParameters || err != nil && strings.Contains(err.Error(), "exceeded limit"):
		err = fmt.Errorf("there are more than %d parameters", maxParameters) // net/url takes 10,000
	case err != nil:
		err = errors.New("the query or form is cut off, or not escaped as %XX")
	}
	if err != nil {
		h.refuse(w, r, status, err)
		return
	}
	config, called := h.config(), ""
	if h.token != "" || config.NoAnswerMessage != "" {
		called = h.calledURL(r)
	}
	if err := h.checkSignature(r, called); err != nil {
		h.refuse(w, r, http.StatusForbidden, err)
		return
	}
	answer, err := Decide(r.Form, config, called)
	if err != nil {
		h.refuse(w, r, http.StatusBadRequest, err)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	_, _ = io.WriteString(w, xml.ResponseElement{Contents: answer.elements}.String()+"\n")
	h.log.Log(r.Context(), answer.level, answer.outcome, append(answer.details, "took", time.Since(start))...)
}

// refuse logs why a request gets no XML, and tells whoever sent it.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, status int, reason error) {
	_ = r.ParseForm() // for the call's UUID, unless it has been read
	h.log.Warn("request refused", "status", status,
		"method", shown(methodShape, r.Method),
		"path", shown(pathShape, r.URL.Path),
		"call", shown(uuidShape, r.Form.Get("CallUUID")),
		"reason", reason)
	text := reason.Error()
	switch status {
	case http.StatusForbidden:
		text = "Only Plivo may ask here, and this request has no valid signature. The server's log says why."
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		text = "This is the answer URL of a Plivo application, but " + text + ".\nA call looks like " +
			"/handleincoming/?From=CALLER&To=PLIVO_NUMBER, each a phone number with country code."
	}
	http.Error(w, text, status)
}

// An Answer is what Plivo is told to do with a call, and what the log says of it.
type Answer struct {
	elements []any // of plivo-go/xml, inside Response
	level    slog.Level
	outcome  string
	details  []any // names and values in turn
}

// Decide returns the answer to the parameters of a request, which
// https://www.plivo.com/docs/voice/xml/request describes, or an error if they describe no call. called is
// the URL that Plivo called, and is to call again when a Dial has ended.
//
// Each Dial has one number to dial, and the Plivo number called as callerId and callerName: without them,
// Plivo would show the caller's own number and name. No answer holds another number.
func Decide(form url.Values, config *Config, called string) (Answer, error) {
	from, badFrom := ParseNumber(form.Get("From"))
	to, badTo := ParseNumber(form.Get("To"))
	cause := cmp.Or(form.Get("HangupCause"), form.Get("HangupCauseName"))
	dialEnded := form.Has("DialStatus") // sent to the action of a Dial
	pairings, listed := config.Serving(to)
	pairing, paired := pairings[from]

	level, why := slog.LevelInfo, ""
	details := []any{"call", shown(uuidShape, form.Get("CallUUID")), "from", from.String(), "to", to.String()}
	switch {
	case form.Get("Event") == "Hangup", cause != "" && !dialEnded: // hangup_url defaults to the answer URL
		seconds := shown(secondsShape, form.Get("Duration"))
		details = append(details, "cause", shown(causeShape, cause), "seconds", seconds)
		return Answer{nil, level, "call ended", details}, nil
	case dialEnded:
		status, elements := form.Get("DialStatus"), speak(config, config.NoAnswerMessage)
		if status == "completed" || status == "cancel" { // they have talked, or the caller gave up
			elements = nil
		}
		details = append(details, "status", shown(causeShape, status),
			"cause", shown(causeShape, form.Get("DialHangupCause")))
		return Answer{elements, level, "dial ended", details}, nil
	case !form.Has("From"):
		return Answer{}, errors.New("the parameter From is missing")
	case !form.Has("To"):
		return Answer{}, errors.New("the parameter To is missing")
	case len(form["From"]) > 1 || len(form["To"]) > 1:
		return Answer{}, errors.New("the parameter From or To is given more than once")
	case badTo != nil:
		return Answer{}, errors.New("the parameter To is not a phone number")
	case config.NoAnswerMessage != "" && called == "":
		return Answer{}, errMalformedHost
	case badFrom != nil:
		why = "the caller's number is withheld or no phone number"
	case from == to:
		level, why = slog.LevelWarn, "the caller's number is the Plivo number called"
	case !paired && listed:
		why = "the caller is in no pairing of this Plivo number, which plivoNumbers lists"
	case !paired:
		why = "the caller is not in customerAgentMap; plivoNumbers does not list this number"
	case pairing.Peer == to:
		level, why = slog.LevelWarn, "the number to dial is the Plivo number called; correct that pairing"
	}
	if why != "" {
		elements := append(speak(config, config.UnknownCallerMessage), new(xml.HangupElement))
		if config.UnknownCallerMessage == "" { // so it ends unanswered, for which Plivo does not bill
			elements = []any{new(xml.HangupElement).SetReason("rejected")}
		}
		return Answer{elements, level, "call rejected: " + why, details}, nil
	}
	details = append(details, "caller", pairing.Caller(), "dialled", pairing.Peer.String())
	return Answer{dial(config, pairing.Peer, to, called), level, "dialling", details}, nil
}

func dial(config *Config, peer, plivoNumber Number, action string) []any {
	dial := new(xml.DialElement).
		SetCallerID(plivoNumber.Digits()).
		SetCallerName(plivoNumber.Digits()).
		SetContents([]any{new(xml.NumberElement).SetContents(peer.Digits())})
	if config.RingTimeout > 0 {
		dial = dial.SetTimeout(config.RingTimeout)
	}
	if config.TimeLimit > 0 {
		dial = dial.SetTimeLimit(config.TimeLimit)
	}
	if config.NoAnswerMessage != "" {
		dial = dial.SetAction(action)
	}
	return append(speak(config, config.ConnectingMessage), dial)
}

// speak says a message; nothing if it is "".
func speak(config *Config, message string) []any {
	if message == "" {
		return nil
	}
	speak := new(xml.SpeakElement).AddSpeak(message)
	if config.Language != "" {
		speak.Language = &config.Language // SetLanguageVoice would set a voice, too
	}
	return []any{speak}
}

// checkSignature returns an error unless Plivo called that URL and signed r, whose form is read, or no
// signature is needed. Version 2 does not count: it does not cover the parameters.
func (h *Handler) checkSignature(r *http.Request, called string) error {
	if h.token == "" {
		return nil
	}
	given := slices.Concat(r.Header["X-Plivo-Signature-V3"], r.Header["X-Plivo-Signature-Ma-V3"])
	nonce := r.Header.Get("X-Plivo-Signature-V3-Nonce")
	if len(given) == 0 || nonce == "" {
		return errors.New("the header X-Plivo-Signature-V3 or X-Plivo-Signature-V3-Nonce is missing")
	}
	if called == "" {
		return errMalformedHost
	}
	posted := map[string]string{}
	for name, values := range r.Form {
		if len(values) > 1 {
			return errors.New("a parameter is given twice, and the signature covers only the first")
		}
		if r.PostForm.Has(name) {
			posted[name] = values[0]
		}
	}
	// plivo-go parses the URL again. Encoding the query anew leaves nothing in it that could then count as
	// something else, such as a fragment.
	uri := called + "?" + r.URL.Query().Encode()
	want := plivo.ComputeSignatureV3(h.token, uri, r.Method, nonce, posted)
	for signature := range strings.SplitSeq(strings.Join(given, ","), ",") {
		if hmac.Equal([]byte(strings.TrimSpace(signature)), []byte(want)) {
			return nil
		}
	}
	return fmt.Errorf("the signature does not fit %s; compare that with the answer URL in Plivo's console: "+
		"if they differ, set PUBLIC_URL to what the console has before /handleincoming/; "+
		"if not, PLIVO_AUTH_TOKEN is another account's, or the request is forged", called)
}

// calledURL returns the URL, without its query, that Plivo called: by PUBLIC_URL, else by what a proxy or the
// connection says. Anyone can send these headers: if they hold more than a host, it returns "".
func (h *Handler) calledURL(r *http.Request) string {
	if h.publicURL != "" {
		return h.publicURL + r.URL.EscapedPath()
	}
	scheme, _, _ := strings.Cut(strings.ToLower(r.Header.Get("X-Forwarded-Proto")), ",") // the first proxy's
	forwarded, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Host"), ",")
	host := cmp.Or(forwarded, r.Host)
	if scheme != "https" {
		scheme = "http"
	}
	called := scheme + "://" + host + r.URL.EscapedPath()
	if _, err := url.Parse(called); err != nil || len(host) > 255 || !hostShape.MatchString(host) {
		return "" // plivo-go would panic on a URL that does not parse, such as http://[0]/
	}
	return called
}

var errMalformedHost = errors.New("the Host or X-Forwarded-Host header is malformed")

// ParsePublicURL reads what comes before /handleincoming/ in the URL that Plivo calls, such as
// https://example.com or https://example.com/prefix; "" if that is not known.
func ParsePublicURL(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	if err == nil {
		_, err = strconv.ParseUint(cmp.Or(u.Port(), "80"), 10, 16)
	}
	defaultPorts := map[string]string{"http": ":80", "https": ":443"} // which Plivo leaves out
	if err != nil || !hostShape.MatchString(u.Host) || u.User != nil || defaultPorts[u.Scheme] == "" ||
		strings.ContainsAny(text, "?#") || strings.Contains(u.Path, "handleincoming") {
		return "", errors.New("PUBLIC_URL must be this server's URL without /handleincoming/, " +
			"such as https://example.com: correct or unset it")
	}
	host := strings.TrimSuffix(u.Host, defaultPorts[u.Scheme])
	return u.Scheme + "://" + host + strings.TrimRight(u.EscapedPath(), "/"), nil
}

// The shapes of what comes from outside and may be logged; a path has at most four digits.
var (
	uuidShape    = regexp.MustCompile(`^[[:xdigit:]]{8}(-[[:xdigit:]]{4}){3}-[[:xdigit:]]{12}$`)
	causeShape   = regexp.MustCompile(`^[A-Za-z _()/-]+$`)
	secondsShape = regexp.MustCompile(`^[0-9]{1,5}$`)
	methodShape  = regexp.MustCompile(`^[A-Z]+$`)
	pathShape    = regexp.MustCompile(`^/([A-Za-z/._~-]*[0-9]){0,4}[A-Za-z/._~-]*$`)
	hostShape    = regexp.MustCompile(`^([\w-]+\.)*` +
		`([\w-]*[A-Za-z][\w-]*|[0-9]{1,3}(\.[0-9]{1,3}){3}|\[[[:xdigit:]:.]+\])(:[0-9]{1,5})?$`)
)

func shown(shape *regexp.Regexp, text string) string {
	switch {
	case text == "":
		return "none"
	case len(text) > 200 || !shape.MatchString(text):
		return "(hidden)"
	}
	return text
}
