package federation

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"time"

	"tunesmith/config"
	"tunesmith/privacy"
)

// Settings are the options of a federation, the same for the server and all clients.
type Settings struct {
	Rounds        int           `yaml:"rounds" doc:"rounds of the federation" min:"1"`
	LocalSteps    int           `yaml:"local_steps" doc:"optimizer steps of a client in a round" min:"1"`
	Strategy      string        `yaml:"strategy" doc:"how the server joins the clients' updates; see the page" type:"fedavg, fedprox, scaffold, flexlora, …"`
	PerRound      int           `yaml:"clients_per_round" doc:"clients that are drawn for a round; 0 takes all" min:"0"`
	Oversample    float64       `yaml:"oversample" doc:"draw this many times more clients and close the round when enough have answered" min:"1"`
	Least         int           `yaml:"least_updates" doc:"fewest updates that make a round" min:"1"`
	Patience      time.Duration `yaml:"patience" doc:"silence after which a client is late; one that shows progress is not, however slow"`
	Asynchronous  int           `yaml:"asynchronous" doc:"updates that make a step without rounds (FedBuff); 0 works in rounds" min:"0"`
	KeepOptimizer bool          `yaml:"keep_optimizer" doc:"clients keep their optimizer's state from round to round"`
	PersonalSteps int           `yaml:"personal_steps" doc:"steps that each client makes for itself after the last round; they never leave it" min:"0"`

	ServerRate     float64  `yaml:"server_rate" doc:"rate of the server's step; 0 is the strategy's default" min:"0"`
	ServerMomentum *float64 `yaml:"server_momentum" doc:"momentum of fedavgm and diloco" min:"0" below:"1"`
	Beta1          *float64 `yaml:"beta1" doc:"of fedadam and fedyogi" min:"0" below:"1"`
	Beta2          *float64 `yaml:"beta2" doc:"of fedadam and fedyogi" min:"0" below:"1"`
	Tau            float64  `yaml:"tau" doc:"keeps adaptive steps finite; 0 is the default 0.001" min:"0"`
	Mu             float64  `yaml:"mu" doc:"fedprox: pull towards the global model" min:"0"`
	Trim           *float64 `yaml:"trim" doc:"fedtrimmedavg: share that is cut off at each end" min:"0" below:"0.5"`
	Malicious      int      `yaml:"malicious" doc:"krum, multikrum, bulyan: clients that may lie" min:"0"`
	Select         int      `yaml:"select" doc:"multikrum: updates that are kept; 0 is all that may be honest" min:"0"`
	Fairness       *float64 `yaml:"fairness" doc:"qfedavg: weight of clients with a high loss" min:"0"`
	MaxNorm        float64  `yaml:"max_norm" doc:"largest norm of a client's change; larger ones are refused; 0 is no limit" min:"0"`

	Compression string  `yaml:"compression" doc:"form of updates on the way up; all but fp32 keep what they lose for the next round" enum:"fp32,fp16,int8,nf4,topk,randk"`
	KeepShare   float64 `yaml:"keep_share" doc:"topk, randk: share of the values that is sent" above:"0" max:"1"`

	Secure    bool    `yaml:"secure" doc:"the server sees only the sum of the updates (pairwise masks); every client counts the same"`
	Threshold float64 `yaml:"threshold" doc:"secure: share of the clients that have to stay, more than half" above:"0.5" max:"1"`
	SumLimit  float64 `yaml:"sum_limit" doc:"secure: largest change of one value" above:"0"`

	Privacy   Protection `yaml:"privacy" doc:"differential privacy"`
	Seeds     int        `yaml:"seeds" doc:"fedkseed: directions that steps may take" min:"1"`
	Partition Shares     `yaml:"partition" doc:"simulation: how clients share the data"`
	Clients   int        `yaml:"clients" doc:"simulation: number of clients" min:"1"`
}

// Protection says whom differential privacy protects, and how far.
type Protection struct {
	Level    string  `yaml:"level" doc:"client hides whether a client takes part, example whether an example of a client does" enum:"none,client,example"`
	Epsilon  float64 `yaml:"epsilon" doc:"declared ε: what would pass it is refused" above:"0"`
	Delta    float64 `yaml:"delta" doc:"δ; below one over the number of those who are protected" above:"0" below:"1"`
	Noise    float64 `yaml:"noise" doc:"noise multiplier; 0 takes what reaches ε in all rounds" min:"0"`
	Clip     float64 `yaml:"clip" doc:"largest norm of a change (client) or of a gradient (example); the start where it adapts" above:"0"`
	Quantile float64 `yaml:"quantile" doc:"client: the limit adapts to this quantile of the norms, such as 0.5; 0 keeps it" min:"0" below:"1"`
	By       string  `yaml:"accountant" doc:"how ε is added up" enum:"rdp,prv"`
}

// Shares says how simulated clients share the data.
type Shares struct {
	Kind    string  `yaml:"kind" doc:"natural gives each task of the data a client; classes and shards split by task" enum:"iid,linear,exponential,dirichlet,shards,classes,natural"`
	Alpha   float64 `yaml:"alpha" doc:"dirichlet: 0.1 is skewed, 100 even" above:"0"`
	Least   int     `yaml:"least" doc:"dirichlet: fewest examples of a client" min:"1"`
	Balance bool    `yaml:"balance" doc:"dirichlet: a client with its even share gets no more"`
	Shards  int     `yaml:"shards" doc:"shards of a client" min:"1"`
	Classes int     `yaml:"classes" doc:"tasks of a client" min:"1"`
}

// Default returns settings with the defaults.
func Default() Settings {
	return Settings{
		Rounds: 10, LocalSteps: 10, Strategy: "fedavg", Oversample: 1, Least: 1, Patience: time.Minute, Compression: "fp32", KeepShare: 0.01,
		Threshold: 0.6, SumLimit: 1, Clients: 4, Seeds: 256,
		Privacy:   Protection{Level: "none", Epsilon: 8, Delta: 1e-5, Clip: 1, By: "rdp"},
		Partition: Shares{Kind: "iid", Alpha: 0.5, Least: 1, Shards: 2, Classes: 1},
	}
}

// Method is a method of the topology axis whose runs are federations.
type Method interface{ Federation() *Settings }

// Validate implements config.Validator.
func (s *Settings) Validate() []config.Problem {
	var out []config.Problem
	problem := func(key, format string, args ...any) { out = append(out, config.Problemf(key, format, args...)) }
	k, err := findKind(s.Strategy)
	if err != nil {
		problem("strategy", "%v", err)
		return out
	}
	if s.Secure && (!k.linear || s.Strategy == seeds) {
		problem("secure", "%s needs each client's update, and with masks the server sees only their sum; take a strategy that averages, such as fedavg", s.Strategy)
	}
	if s.Secure && s.Compression != "fp32" {
		problem("compression", "masked updates are integers already; want fp32 with secure, have %s", s.Compression)
	}
	if s.Secure && s.MaxNorm > 0 {
		problem("max_norm", "the norm of a masked update cannot be seen; privacy.clip bounds it at the client")
	}
	if s.Secure && s.Privacy.Level == "client" && s.PerRound > 0 {
		problem("clients_per_round", "with secure and privacy of clients all take part; want 0, have %d", s.PerRound)
	}
	if s.Asynchronous > 0 {
		switch {
		case s.Secure:
			problem("asynchronous", "masks need rounds; want secure: false")
		case s.Privacy.Level == "client":
			problem("asynchronous", "privacy of clients is accounted by rounds")
		case !slices.Contains([]string{"fedavg", "fedprox", "fedit", "ffa"}, s.Strategy):
			problem("asynchronous", "want fedavg, fedprox, fedit or ffa without rounds, have %s", s.Strategy)
		}
	}
	if s.Privacy.Level == "client" && !k.linear {
		problem("privacy.level", "%s weighs clients by what they send; want a strategy that averages, such as fedavg, or level example", s.Strategy)
	}
	if s.Privacy.Level == "example" && s.Strategy == seeds {
		problem("privacy.level", "fedkseed has no gradients of examples to clip; want level client or none")
	}
	if s.Privacy.Level != "none" && s.Strategy == "qfedavg" {
		problem("strategy", "qfedavg weighs clients by their losses, which privacy does not let out; take fedavg")
	}
	if s.KeepOptimizer && (s.Strategy == "rolora" || s.Strategy == "flexlora") {
		problem("keep_optimizer", "what %s trains is new in each round; want false", s.Strategy)
	}
	if s.Patience < time.Second {
		problem("patience", "want at least 1s, have %v", s.Patience)
	}
	return out
}

// options are the strategy's settings.
func (s *Settings) options(localRate float64, p Products) Options {
	return Options{
		Rate: s.ServerRate, Momentum: s.ServerMomentum, Beta1: s.Beta1, Beta2: s.Beta2, Tau: s.Tau, Trim: s.Trim, Malicious: s.Malicious,
		Select: s.Select, Fairness: s.Fairness, LocalRate: localRate, Clients: s.Clients, Products: p,
	}
}

func (s *Settings) codec() Codec { return Codec{Name: s.Compression, Keep: s.KeepShare} }

// accountant returns the books of the declared ε, empty.
func (s *Settings) accountant() *privacy.Accountant {
	return &privacy.Accountant{By: privacy.Kind(s.Privacy.By), Budget: s.Privacy.Epsilon, Delta: s.Privacy.Delta}
}

// noise returns the noise multiplier for steps at a rate.
func (s *Settings) noise(rate float64, steps int) (float64, error) {
	if s.Privacy.Noise > 0 {
		return s.Privacy.Noise, nil
	}
	return privacy.Calibrate(privacy.Kind(s.Privacy.By), s.Privacy.Epsilon, s.Privacy.Delta, rate, steps)
}

// frozen returns which parameters rest in a round, nil for none.
func (s *Settings) frozen(round int, p Products) func(name string) bool {
	first := s.Strategy == "ffa" || s.Strategy == "rolora" && round%2 == 1
	second := s.Strategy == "rolora" && round%2 == 0
	if !first && !second {
		return nil
	}
	return func(name string) bool {
		return slices.ContainsFunc(p, func(x Product) bool { return first && x.A == name || second && x.B == name })
	}
}

// perRound returns how many clients of so many a round wants.
func (s *Settings) perRound(all int) int {
	if s.PerRound == 0 {
		return all
	}
	return min(s.PerRound, all)
}

// drawn returns how many clients of so many are asked.
func (s *Settings) drawn(all int) int {
	return min(all, int(math.Ceil(s.Oversample*float64(s.perRound(all))-1e-9)))
}

// digest identifies settings: the server and its clients have to agree.
func digestOf(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // settings are plain values
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}
