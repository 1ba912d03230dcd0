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
	"strings"
	"sync/atomic"
	"time"

	"github.com/plivo/plivo-go/v7"
	"github.com/plivo/plivo-go/v7/xml"
)

// A Handler answers Plivo's requests to the answer URL, /handleincoming/, and a load balancer's to /healthz.
type Handler struct {
	config    atomic.Pointer[Config] // the one in force; a request loads it once
	token     string                 // Plivo's auth token; "" if requests need no signature
	publicURL string                 // the answer URL up to /handleincoming/; "" if not known
	log       *slog.Logger
}

// NewHandler checks PLIVO_AUTH_TOKEN and PUBLIC_URL, each of which may be "". PUBLIC_URL is what comes before
// /handleincoming/ in the URL that Plivo calls. A Config must be stored in config before it serves.
func NewHandler(token, publicURL string, log *slog.Logger) (*Handler, error) {
	token, publicURL = strings.TrimSpace(token), strings.TrimSpace(publicURL)
	base := ""
	parts := publicShape.FindStringSubmatch(publicURL) // scheme, host and path
	if parts != nil && !strings.Contains(parts[3], "handleincoming") {
		base = joinURL(strings.ToLower(parts[1]), parts[2], strings.TrimRight(parts[3], "/"))
	}
	switch {
	case base == "" && publicURL != "":
		return nil, errors.New("PUBLIC_URL must be this server's URL without /handleincoming/, such as " +
			"https://example.com: correct or unset it")
	case token == "" && publicURL != "":
		return nil, errors.New("PUBLIC_URL is set, but PLIVO_AUTH_TOKEN is not, so anyone could ask who is " +
			"paired with whom: set both (the token is in Plivo's console), or neither")
	case token != "" && !tokenShape.MatchString(token), token == "YOUR_AUTH_TOKEN":
		return nil, errors.New("PLIVO_AUTH_TOKEN is not an auth token: copy it from Plivo's console, " +
			"without quotes, comments or anything else around it")
	}
	return &Handler{token: token, publicURL: base, log: log}, nil
}

// ServeHTTP matches paths itself: http.ServeMux redirects unclean ones, and a redirected POST loses its form.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // an answer holds a private number
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	path, method := r.URL.Path, r.Method
	isAnswerURL := path == "/handleincoming/" || path == "/handleincoming"
	switch {
	case isAnswerURL && (method == "GET" || method == "POST"):
		h.incoming(w, r)
	case isAnswerURL:
		w.Header().Set("Allow", "GET, POST")
		h.refuse(w, r, http.StatusMethodNotAllowed, errors.New("use GET or POST here"))
	case path == "/healthz" && (method == "GET" || method == "HEAD"):
		_, _ = io.WriteString(w, "ok\n")
	case path == "/healthz":
		w.Header().Set("Allow", "GET, HEAD")
		h.refuse(w, r, http.StatusMethodNotAllowed, errors.New("use GET or HEAD here"))
	default:
		h.refuse(w, r, http.StatusNotFound,
			errors.New("nothing is here: the answer URL is /handleincoming/, the health check /healthz"))
	}
}

// incoming answers a request to the answer URL: it reads the form, checks the signature, decides what
// happens with the call, and says so in XML.
func (h *Handler) incoming(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if status, err := readForm(r); err != nil {
		h.refuse(w, r, status, err)
		return
	}
	config, calledURL := h.config.Load(), ""
	if h.token != "" || config.NoAnswerMessage != "" { // else not needed, and it takes a fifth more time
		calledURL = h.calledURL(r)
	}
	if err := h.checkSignature(r, calledURL); err != nil {
		h.refuse(w, r, http.StatusForbidden, err)
		return
	}
	from, _ := ParseNumber(r.Form.Get("From"))
	to, _ := ParseNumber(r.Form.Get("To"))
	call := Call{From: from, To: to, form: r.Form}
	answer, err := Decide(call, config, calledURL)
	if err != nil {
		h.refuse(w, r, http.StatusBadRequest, err)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	_, _ = io.WriteString(w, xml.ResponseElement{Contents: answer.elements}.String()+"\n")
	uuid := shown(uuidShape, r.Form.Get("CallUUID"))
	who := []any{"call", uuid, "from", call.From.String(), "to", call.To.String()}
	h.log.Log(r.Context(), answer.level, answer.outcome,
		slices.Concat(who, answer.details, []any{"took", time.Since(start)})...)
}

const (
	maxBody       = 64 << 10 // bytes of a form; Plivo sends about 1 KiB
	maxParameters = 100      // Plivo sends some 30; plivo-go's signature takes time quadratic in them
)

// readForm reads query and body into r.Form. An error comes with the status to refuse r with.
func readForm(r *http.Request) (status int, err error) {
	err = r.ParseForm()
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the form is larger than %d KiB", maxBody>>10)
	case len(r.Form) > maxParameters || err != nil && strings.Contains(err.Error(), "exceeded limit"):
		// net/url gives up at 10,000, with an error that has no type.
		return http.StatusBadRequest, fmt.Errorf("there are more than %d parameters", maxParameters)
	case err != nil:
		return http.StatusBadRequest, errors.New("the query or form can't be parsed (escaped as %XX?)")
	}
	return 0, nil
}

// refuse logs why a request gets no XML, and tells the sender.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, status int, reason error) {
	_ = r.ParseForm() // for CallUUID below; a no-op if the form has been parsed
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

// A Call is what Plivo says of a call: https://www.plivo.com/docs/voice/xml/request
type Call struct {
	From, To Number     // the caller and the number called; Number{} if withheld or not a phone number
	form     url.Values // all parameters
}

// An Answer is what Plivo is told to do with a call, and what the log says of it.
type Answer struct {
	elements []any // of plivo-go/xml, inside Response
	level    slog.Level
	outcome  string
	details  []any // names and values in turn
}

// Decide returns the answer to a request, or an error if the request does not describe a call. Plivo also
// reports here that a call has ended, since its hangup_url defaults to the answer URL. calledURL is used only
// with a NoAnswerMessage: Plivo requests it again when the Dial ends. It is "" then for a malformed Host.
func Decide(call Call, config *Config, calledURL string) (Answer, error) {
	form, event := call.form, call.form.Get("Event")
	causeName, cause := form.Get("HangupCauseName"), form.Get("HangupCause")
	switch {
	case event != "Hangup" && reportsDial(form): // the report of a hangup may have Dial parameters, too
		return dialEnded(form, config), nil
	case event == "Hangup" || event == "" && causeName+cause != "": // a report may lack Event
		return Answer{outcome: "call ended", details: []any{
			"cause", shown(causeShape, causeName, cause), // the name tells more, if it is readable
			"seconds", shown(secondsShape, form.Get("Duration")),
		}}, nil
	case !form.Has("From"):
		return Answer{}, errors.New("the parameter From is missing")
	case !form.Has("To"):
		return Answer{}, errors.New("the parameter To is missing")
	case len(form["From"]) > 1 || len(form["To"]) > 1:
		return Answer{}, errors.New("the parameter From or To is given more than once")
	case form.Get("Direction") == "outbound":
		const why = "the business placed this call, so its To is the person called, not a Plivo number"
		return reject(config, slog.LevelInfo, why), nil
	case call.To == Number{}:
		return Answer{}, errors.New("the parameter To is not a phone number")
	case calledURL == "" && config.NoAnswerMessage != "":
		return Answer{}, errMalformedHost
	}
	return connect(call, config, calledURL), nil
}

// connect rings the other phone of the caller's pairing, or turns away a caller who is in none.
func connect(call Call, config *Config, calledURL string) Answer {
	pairings, listed := config.Serving(call.To)
	pairing, paired := pairings[call.From]
	switch {
	case call.From == Number{}:
		return reject(config, slog.LevelInfo, "the caller's number is withheld or not a phone number")
	case call.From == call.To:
		return reject(config, slog.LevelWarn, "the caller's number is the Plivo number called")
	case !paired && listed:
		const why = "the caller is in no pairing of this Plivo number, which plivoNumbers lists"
		return reject(config, slog.LevelInfo, why)
	case !paired:
		const why = "the caller is not in customerAgentMap; plivoNumbers does not list this number"
		return reject(config, slog.LevelInfo, why)
	case pairing.Peer == call.To:
		const why = "the number to dial is the Plivo number called; correct that pairing"
		return reject(config, slog.LevelWarn, why)
	}
	dial := xml.DialElement{ // without callerId and callerName, Plivo shows the caller's own number and name
		CallerID:   new(call.To.Digits()),
		CallerName: new(call.To.Digits()),
		Timeout:    config.RingTimeout,
		TimeLimit:  config.TimeLimit,
		Contents:   []any{xml.NumberElement{Contents: pairing.Peer.Digits()}},
	}
	if config.NoAnswerMessage != "" {
		dial.Action = &calledURL
	}
	return Answer{
		elements: append(speak(config, config.ConnectingMessage), dial),
		outcome:  "dialling",
		details:  []any{"caller", pairing.Caller(), "dialled", pairing.Peer.String()},
	}
}

// reject turns a caller away: unanswered, for which Plivo does not bill, or with call.unknownCallerMessage.
func reject(config *Config, level slog.Level, why string) Answer {
	elements := []any{xml.HangupElement{Reason: new("rejected")}}
	if config.UnknownCallerMessage != "" {
		elements = append(speak(config, config.UnknownCallerMessage), xml.HangupElement{})
	}
	return Answer{elements: elements, level: level, outcome: "call rejected: " + why}
}

// speak says a message; nothing if it is "".
func speak(config *Config, message string) []any {
	if message == "" {
		return nil
	}
	speak := xml.SpeakElement{Contents: []any{message}}
	if config.Language != "" {
		speak.Language = &config.Language
	}
	return []any{speak}
}

// reportsDial reports whether a request is about a Dial of an earlier answer, and not about a new call.
func reportsDial(form url.Values) bool {
	for name := range form {
		if strings.HasPrefix(name, "Dial") {
			return true
		}
	}
	return strings.HasPrefix(form.Get("Event"), "Dial")
}

// dialEnded tells the caller that nobody answered, unless the two have talked or the caller gave up.
func dialEnded(form url.Values, config *Config) Answer {
	status, cause := form.Get("DialStatus"), form.Get("DialHangupCause")
	answer := Answer{outcome: "dial ended", details: []any{
		"status", shown(causeShape, status), "cause", shown(causeShape, cause)}}
	// A report without a status has the other phone's UUID only if that phone was picked up.
	talked := status == "completed" || (status == "" && form.Get("DialBLegUUID") != "")
	if !talked && status != "cancel" {
		answer.elements = speak(config, config.NoAnswerMessage)
	}
	return answer
}

// checkSignature returns an error unless Plivo signed the request to calledURL with the token, if any.
// The form must be parsed. A version 2 signature does not count, since it does not cover the parameters.
func (h *Handler) checkSignature(r *http.Request, calledURL string) error {
	if h.token == "" {
		return nil
	}
	// Ma stands for main account: that signature is made with its token.
	given := slices.Concat(r.Header["X-Plivo-Signature-V3"], r.Header["X-Plivo-Signature-Ma-V3"])
	nonce := r.Header.Get("X-Plivo-Signature-V3-Nonce")
	if len(given) == 0 || nonce == "" {
		return errors.New("the header X-Plivo-Signature-V3 or X-Plivo-Signature-V3-Nonce is missing")
	}
	if calledURL == "" {
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
	// Encode the query anew: plivo-go parses this URL, and would take a raw # in it for a fragment. Without a
	// query, it drops the question mark.
	uri := calledURL + "?" + r.URL.Query().Encode()
	want := plivo.ComputeSignatureV3(h.token, uri, r.Method, nonce, posted)
	for signature := range strings.SplitSeq(strings.Join(given, ","), ",") {
		if hmac.Equal([]byte(strings.TrimSpace(signature)), []byte(want)) {
			return nil
		}
	}
	return fmt.Errorf("the signature does not fit %s; compare that with the answer URL in Plivo's console: "+
		"if they differ, set PUBLIC_URL to what the console has before /handleincoming/; "+
		"if not, PLIVO_AUTH_TOKEN is another account's, or the request is forged", calledURL)
}

// calledURL returns the URL that Plivo called, without its query: PUBLIC_URL if that is set, else what
// X-Forwarded-* or Host say. These can be forged: for anything but a plain host, it returns "".
func (h *Handler) calledURL(r *http.Request) string {
	if h.publicURL != "" {
		return h.publicURL + r.URL.EscapedPath()
	}
	scheme := "http"
	proto, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",") // each proxy appends its own
	if strings.EqualFold(proto, "https") {
		scheme = "https"
	}
	forwarded, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Host"), ",")
	return joinURL(scheme, cmp.Or(forwarded, r.Host), r.URL.EscapedPath())
}

var errMalformedHost = errors.New("the Host or X-Forwarded-Host header is malformed")

// joinURL leaves out the scheme's default port, as Plivo does. It returns "" if host is malformed.
func joinURL(scheme, host, path string) string {
	port := ":80"
	if scheme == "https" {
		port = ":443"
	}
	base := scheme + "://" + strings.TrimSuffix(host, port)
	if _, err := url.Parse(base); err != nil || len(host) > 255 || !hostShape.MatchString(host) {
		return "" // plivo-go would panic on a URL that does not parse, such as http://[0]
	}
	return base + path
}

// The shapes of what comes from outside, most of it for the log. More than four digits in a path might be a
// phone number.
var (
	tokenShape   = regexp.MustCompile(`^[A-Za-z0-9+/=_-]+$`)
	uuidShape    = regexp.MustCompile(`^[[:xdigit:]]{8}(-[[:xdigit:]]{4}){3}-[[:xdigit:]]{12}$`)
	causeShape   = regexp.MustCompile(`^[A-Za-z _()/-]+$`)
	secondsShape = regexp.MustCompile(`^[0-9]{1,5}$`)
	methodShape  = regexp.MustCompile(`^[A-Z]+$`)
	pathShape    = regexp.MustCompile(`^/([A-Za-z/._~-]*[0-9]){0,4}[A-Za-z/._~-]*$`)
	publicShape  = regexp.MustCompile(`^([Hh][Tt][Tt][Pp][Ss]?)://([^/]+)(/[A-Za-z0-9/._~-]*)?$`)
	hostShape    = regexp.MustCompile(`^([\w-]+\.)*` + // a name or an IP address, and perhaps a port
		`([\w-]*[A-Za-z][\w-]*|[0-9]{1,3}(\.[0-9]{1,3}){3}|\[[[:xdigit:]:.]+\])(:[0-9]{1,5})?$`)
)

// shown returns the first of the texts that has the shape, for the log: any other might be a phone number.
func shown(shape *regexp.Regexp, texts ...string) string {
	result := "none"
	for _, text := range texts {
		if len(text) <= 200 && shape.MatchString(text) {
			return text
		}
		if text != "" {
			result = "(hidden)"
		}
	}
	return result
}
