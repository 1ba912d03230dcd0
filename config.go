package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// A Config is what config.json says. Loading checks it, so it can't be ambiguous, and it never changes: an
// edited file makes a new Config.
type Config struct {
	Port                 int    // TCP port to listen on, 1 to 65535
	UnknownCallerMessage string // spoken before hanging up; "" rejects the call unanswered
	ConnectingMessage    string // spoken before dialling; "" says nothing
	NoAnswerMessage      string // spoken if the other phone is not picked up; "" ends the call
	Language             string // of the messages, such as de-DE; "" leaves it to Plivo
	RingTimeout          int    // seconds, 1 to 86400; 0 leaves it to Plivo
	TimeLimit            int    // seconds, 1 to 86400; 0 leaves it to Plivo
	Pairings             int    // how many there are

	customerAgentMap Lookup            // for calls to each Plivo number that plivoNumbers does not list
	plivoNumbers     map[Number]Lookup // Plivo number → its own pairings
}

// A Lookup finds a pairing by its caller: it has each pairing twice, for the customer and for the agent.
type Lookup map[Number]Pairing

// A Pairing joins a customer and an agent, seen from the one who calls.
type Pairing struct {
	Peer    Number // the other one, whose phone is to ring
	byAgent bool   // the caller is the agent
	line    int32  // in the file, for messages
}

// Caller says what the caller is in the pairing: customer or agent.
func (p Pairing) Caller() string {
	if p.byAgent {
		return "agent"
	}
	return "customer"
}

// Serving returns the pairings for calls to plivoNumber, and whether they are its own.
func (c *Config) Serving(plivoNumber Number) (pairings Lookup, listed bool) {
	if pairings, listed = c.plivoNumbers[plivoNumber]; listed {
		return pairings, true
	}
	return c.customerAgentMap, false
}

// A ConfigFile is the file that a Config is loaded from, watched for edits.
type ConfigFile struct {
	path    string
	tried   string // digest of what Load found last
	differs bool   // the last look found something else
}

// Edited looks at the file and reports whether to load it: if it differs from what was tried last, at this
// look and the previous one, as the first difference may be half of an edit. Only the content tells: cp -p
// and tar set the time stamp, and phone numbers are often equally long.
func (f *ConfigFile) Edited() bool {
	differed := f.differs
	digest, _ := f.read(io.Discard)
	f.differs = digest != f.tried
	return differed && f.differs
}

// Load reads and checks the file. The error has one problem a line, and never shows a phone number.
func (f *ConfigFile) Load() (*Config, error) {
	defer debug.FreeOSMemory() // loading takes several times the size of the file
	var data bytes.Buffer
	digest, err := f.read(&data)
	f.tried, f.differs = digest, false
	if err != nil {
		return nil, fmt.Errorf("%w: put a file there that can be read, or name another with -config", err)
	}
	return ParseConfig(f.path, data.Bytes())
}

// read copies the file to w and returns a digest of it, or the reason why it can't be read.
func (f *ConfigFile) read(w io.Writer) (digest string, err error) {
	file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // or a FIFO would wait for its writer
	if err != nil {
		return err.Error(), err
	}
	defer file.Close()
	const most = 256 << 20 // bytes; a million pairings take 33 MB
	hash := sha256.New()
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file", f.path)
	case info.Size() > most:
		err = fmt.Errorf("%s is larger than %d MB", f.path, most>>20)
	default:
		_, err = io.Copy(io.MultiWriter(hash, w), io.LimitReader(file, most)) // as it may have grown since
	}
	if err != nil {
		return err.Error(), err
	}
	return string(hash.Sum(nil)), nil
}

// ParseConfig checks data, the content of the file called name. The error has one problem a line, in the
// order of the file: "config.json:LINE: what is wrong and what to do", or LINE:COLUMN if data is not JSON.
func ParseConfig(name string, data []byte) (*Config, error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF")) // Windows editors begin files with it
	n := 0
	for line := range bytes.Lines(data) {
		if n++; !utf8.Valid(line) || bytes.IndexByte(line, 0) >= 0 {
			return nil, fmt.Errorf("%s:%d: not UTF-8, perhaps UTF-16 or Latin-1: save it as UTF-8", name, n)
		}
	}
	var keys struct{ PlivoNumbers map[string]struct{} } // the parser reads what else there is
	if bad, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(data, &keys)); ok {
		return nil, syntaxError(name, data, bad)
	}
	p := &parser{name: name, data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	p.config = &Config{Port: 5000, plivoNumbers: map[Number]Lookup{}}
	for key := range keys.PlivoNumbers { // before the walk, which finds parties that are among them
		number, _ := ParseNumber(key) // the walk says what is wrong with it
		p.config.plivoNumbers[number] = nil
	}
	p.settings("", `{ "customerAgentMap": { "CUSTOMER": "AGENT" } }`,
		"app, call, customerAgentMap or plivoNumbers")
	if p.found == 0 && p.config.customerAgentMap == nil && keys.PlivoNumbers == nil {
		p.problem(`no pairings: add "customerAgentMap": { "CUSTOMER": "AGENT" }, or {} for none yet`)
	}
	if more := p.found - len(p.problems); more > 0 {
		p.problems = append(p.problems, fmt.Errorf("%s: %s like these", name, plural(more, "more problem")))
	}
	if p.found > 0 {
		return nil, errors.Join(p.problems...)
	}
	return p.config, nil
}

// A parser walks through data, which is valid JSON, fills in config and collects what is wrong.
type parser struct {
	name     string // of the file
	data     []byte
	dec      *json.Decoder // of data
	counted  int           // bytes of data whose lines are counted
	line     int           // of the last key
	config   *Config
	problems []error // the first 20
	found    int     // problems in all
}

// settings reads the settings in a section, or those of the whole file if section is "".
func (p *parser) settings(section, form, keys string) {
	c, object, lines := p.config, cmp.Or(section, "the file"), map[string]int{}
	p.object(object, form, func(key string) {
		quoted := fmt.Sprintf("%.40q", key)
		if strings.ContainsFunc(key, unicode.IsNumber) {
			quoted = "(hidden, as it has digits)" // which may be those of a phone number
		}
		if first, again := lines[key]; again {
			p.problem("%s is already in line %d: put the two into one", quoted, first)
			p.skip()
			return
		}
		lines[key] = p.line
		switch name := section + "." + key; name {
		case ".app":
			p.settings("app", `{ "port": 5000 }`, "port")
		case "app.port":
			c.Port = p.integer(name, 65535)
		case ".call":
			p.settings("call", `{ "ringTimeout": 30 }`, "unknownCallerMessage, connectingMessage, "+
				"noAnswerMessage, language, ringTimeout or timeLimit")
		case "call.unknownCallerMessage":
			c.UnknownCallerMessage = p.message(name)
		case "call.connectingMessage":
			c.ConnectingMessage = p.message(name)
		case "call.noAnswerMessage":
			c.NoAnswerMessage = p.message(name)
		case "call.language":
			if err := p.dec.Decode(&c.Language); err != nil || !languageShape.MatchString(c.Language) {
				p.problem(`call.language must be a language and country code in quotes, such as "de-DE"`)
			}
		case "call.ringTimeout":
			c.RingTimeout = p.integer(name, 86400)
		case "call.timeLimit":
			c.TimeLimit = p.integer(name, 86400)
		case ".customerAgentMap":
			c.customerAgentMap = p.pairings(key)
		case ".plivoNumbers":
			numberLines := map[Number]int{}
			p.object(key, `{ "PLIVO NUMBER": { "CUSTOMER": "AGENT" } }`, func(key string) {
				number := p.number("Plivo number", key)
				if first := numberLines[number]; first > 0 && number != (Number{}) {
					p.problem("the Plivo number is already in line %d: put all its pairings there", first)
				}
				numberLines[number] = p.line
				c.plivoNumbers[number] = p.pairings("the value of a Plivo number")
			})
		default:
			p.problem("unknown key %s in %s: write %s; pairings belong inside customerAgentMap",
				quoted, object, keys)
			p.skip()
		}
	})
}

// pairings reads a map from customers to agents.
func (p *parser) pairings(name string) Lookup {
	lookup := Lookup{}
	p.object(name, `{ "CUSTOMER": "AGENT" }`, func(key string) {
		customer, agent := p.number("customer", key), Number{}
		var text *string
		if err := p.dec.Decode(&text); err != nil || text == nil {
			p.problem("the agent must be one phone number in quotes (a map of them belongs in plivoNumbers)")
		} else {
			agent = p.number("agent", *text)
		}
		switch {
		case customer == Number{} || agent == Number{}: // a problem already
		case customer == agent:
			p.problem("the customer is paired with itself: write the agent's number after the customer's")
		default:
			p.add(lookup, customer, Pairing{agent, false, int32(p.line)})
			p.add(lookup, agent, Pairing{customer, true, int32(p.line)})
			p.config.Pairings++
		}
	})
	return lookup
}

func (p *parser) add(lookup Lookup, caller Number, pairing Pairing) {
	first, taken := lookup[caller]
	_, isPlivoNumber := p.config.plivoNumbers[caller]
	switch {
	case isPlivoNumber:
		p.problem("the %s is also in plivoNumbers, and would dial itself: correct one", pairing.Caller())
	case taken:
		p.problem("the %s is already the %s of the pairing in line %d, and only one phone can ring: correct "+
			"one, or let plivoNumbers give each pairing a Plivo number of its own",
			pairing.Caller(), first.Caller(), first.line)
	default:
		lookup[caller] = pairing
	}
}

// number reads text as a phone number; Number{} if it is none.
func (p *parser) number(what, text string) Number {
	number, err := ParseNumber(text)
	if err != nil {
		p.problem("the %s is no phone number: %v", what, err)
	}
	return number
}

func (p *parser) integer(name string, most int) (n int) {
	if err := p.dec.Decode(&n); err != nil || n < 1 || n > most {
		p.problem("%s must be a whole number from 1 to %d, without quotes", name, most)
	}
	return n
}

func (p *parser) message(name string) string {
	const most = 10_000 // Plivo takes 100 kB of XML: https://www.plivo.com/docs/voice/xml/request
	var text *string
	if err := p.dec.Decode(&text); err != nil || text == nil || len(*text) > most {
		p.problem("%s must be a text in quotes, of at most %d bytes", name, most)
		return ""
	}
	return *text
}

// object reads an object, calling member for each key to read its value.
func (p *parser) object(name, form string, member func(key string)) {
	if next := bytes.TrimLeft(p.data[p.dec.InputOffset():], ": \t\r\n"); next[0] != '{' {
		p.problem("%s must have the form %s", name, form)
		p.skip()
		return
	}
	_, _ = p.dec.Token() // the opening brace; no Token fails, since data is valid
	for p.dec.More() {
		key, _ := p.dec.Token()
		end := int(p.dec.InputOffset())
		p.line += bytes.Count(p.data[p.counted:end], []byte("\n"))
		p.counted = end
		member(key.(string))
	}
	_, _ = p.dec.Token()
}

// skip reads a value that nobody wants.
func (p *parser) skip() { _ = p.dec.Decode(new(json.RawMessage)) }

func (p *parser) problem(format string, args ...any) {
	if p.found++; p.found <= 20 {
		text := fmt.Sprintf(format, args...)
		p.problems = append(p.problems, fmt.Errorf("%s:%d: %s", p.name, p.line, text))
	}
}

// syntaxError says where data stops being JSON, and how to mend the usual slips.
func syntaxError(name string, data []byte, bad *json.SyntaxError) error {
	reason, at := bad.Error(), len(data)
	if !strings.HasPrefix(reason, "unexpected end") {
		at = max(min(int(bad.Offset), len(data))-1, 0)
		for at > 0 && !utf8.RuneStart(data[at]) { // Go 1.27 counts all bytes of a character, 1.26 the first
			at--
		}
	}
	begin := bytes.IndexFunc(data, func(r rune) bool { return !unicode.IsSpace(r) })
	good := len(bytes.TrimSpace(data[:at]))
	backslash := bytes.LastIndexByte(data[:at], '\\')
	char, _ := utf8.DecodeRune(data[at:])
	what, advice := "unexpected "+visible(char), ""
	switch {
	case begin < 0:
		what, advice = "the file is empty", `write at least { "customerAgentMap": {} }`
	case at == len(data):
		what, advice = "the file ends too early", "a closing brace or quote is missing, here or above"
	case backslash >= 0 && strings.Contains(reason, "escape"):
		at, what, advice = backslash, `unexpected "\"`, `write \\ for a backslash in a text`
	case mergeMark.Match(data[at:]):
		advice = "a merge conflict: keep one of the two versions, and remove the marks"
	case strings.ContainsRune("/#", char):
		advice = "JSON has no comments: remove this one"
	case data[begin] != '{':
		at, what, advice = begin, "this is not JSON", "the file must begin with {"
	case strings.ContainsRune("'`´‘’‚‛“”„‟«»", char):
		advice = `not the quote of JSON: write " around each key and text`
	case char == '\n' || char == '\r':
		advice = `a text must end in its line, with ": look for a missing or curly quote`
	case !unicode.IsPrint(char):
		advice = "no tab or other invisible character may stand here: remove it, or write a space"
	case strings.ContainsRune("}]", char) && data[good-1] == ',':
		at, what, advice = good-1, `unexpected ","`, "no comma may stand before a closing brace: remove it"
	case char == '"' && strings.HasSuffix(reason, "after object key:value pair"):
		at, what, advice = good, "a comma is missing", "write one between two pairs"
	case strings.HasSuffix(reason, "after object key"):
		advice = "write a colon between a key and its value, or the quote that ends the key"
	default:
		advice = "look for a missing or extra comma, quote or brace here or just before"
	}
	line := 1 + bytes.Count(data[:at], []byte("\n"))
	column := 1 + utf8.RuneCount(data[bytes.LastIndexByte(data[:at], '\n')+1:at])
	return fmt.Errorf("%s:%d:%d: %s: %s", name, line, column, what, advice)
}

// A Number is a phone number in E.164 form, country code first. Only ParseNumber makes one, so it is well
// formed, unless it is Number{}, which stands for none. Whatever prints it shows its last four digits at
// most; Digits returns them all.
type Number struct {
	flipped uint64 // the digits as an integer, bits flipped, as fmt prints unexported fields without Format
}

// ParseNumber reads a phone number that begins with its country code, written as people do, such as
// +1 (415) 666-7777. The error says what is wrong without showing the number.
func ParseNumber(text string) (Number, error) {
	text = strings.ReplaceAll(text, " ", "")
	digits := strings.TrimPrefix(separators.Replace(text), "+")
	value, _ := strconv.ParseUint(digits, 10, 64)
	_, decimals, _ := strings.Cut(text, ".")
	why := ""
	switch bad := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); {
	case bad >= 0 && scientific.MatchString(text):
		why = "a spreadsheet has shortened it; format the column as text and enter it anew"
	case bad >= 0:
		char, _ := utf8.DecodeRuneInString(digits[bad:])
		why = "it has the character " + visible(char) + "; write digits only, with or without + in front"
	case strings.HasPrefix(digits, "0"):
		why = "it begins with 0; begin with the country code, without 0 or 00"
	case strings.Contains(text, "(0"):
		why = "it has a 0 in parentheses; write it as it is dialled from abroad"
	case strings.HasSuffix(text, ".0"), decimals != "" && strings.Trim(decimals, "0") == "":
		why = "it ends in .0, as spreadsheets write numbers; remove that"
	case len(digits) < 7 || len(digits) > 15:
		why = "it has " + plural(len(digits), "digit") + "; write 7 to 15, country code included"
	case digits[0] == '1' && len(digits) != 11:
		why = fmt.Sprintf("it begins with 1 and has %d digits; numbers of North America have 11", len(digits))
	default:
		return Number{^value}, nil
	}
	return Number{}, errors.New(why)
}

// Digits returns the whole number without +, as Plivo sends and takes it; "" for Number{}.
func (n Number) Digits() string {
	if n == (Number{}) {
		return ""
	}
	return strconv.FormatUint(^n.flipped, 10)
}

// String returns the number masked, such as *******7777.
func (n Number) String() string {
	if n == (Number{}) {
		return "none"
	}
	digits := n.Digits()
	return strings.Repeat("*", len(digits)-4) + digits[len(digits)-4:]
}

// Format prints the number masked for each verb of fmt, even %d.
func (n Number) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, n.String()) }

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// visible returns a character in quotes if it can be seen, else its code point, such as U+00A0.
func visible(char rune) string {
	if unicode.IsPrint(char) && char != ' ' {
		return `"` + string(char) + `"`
	}
	return fmt.Sprintf("%U", char)
}

// What phone numbers and other texts in the file look like.
var (
	separators    = strings.NewReplacer(" ", "", "-", "", ".", "", "(", "", ")", "")
	scientific    = regexp.MustCompile(`^[+]?[0-9]+([.,][0-9]*)?[eE][+]?[0-9]+$`)
	mergeMark     = regexp.MustCompile(`^(<{7}|={7}|>{7}|\|{7})`)
	languageShape = regexp.MustCompile(`^([a-z]{2,3}-[A-Z]{2}(-[A-Z]{3})?|arb)$`)
)
