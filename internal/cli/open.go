package cli

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tunesmith/engine"
	"tunesmith/generate"
	"tunesmith/hub"
	"tunesmith/methods"
	"tunesmith/model"
	"tunesmith/recipes"
	"tunesmith/tune"
)

// embedded is the name of the base model that the program carries.
const embedded = "tinybase"

// modelPath returns the file or directory that a model's name stands for.
func modelPath(name string) (string, error) {
	if name == embedded { // a folder of that name is ./tinybase
		return recipes.Base()
	}
	_, err := os.Stat(name)
	if err == nil {
		return name, nil
	}
	if hub.IsName(name) && (!strings.HasSuffix(name, ".gguf") || strings.Count(name, "/") > 1) {
		path, err := hubPath(name)
		if err != nil {
			return "", fmt.Errorf("model: %w; or give a GGUF file, or a directory with config.json and safetensors", err)
		}
		return path, nil
	}
	return "", fmt.Errorf("model: %w; give a GGUF file, a directory with config.json and safetensors, the name of a pulled model, or %s", err, embedded)
}

// loaded is a model that is ready to be used.
type loaded struct {
	*model.Adapted
	text    tune.Text
	backend engine.Backend
	graft   any
}

func (l *loaded) Close() error { return errors.Join(l.backend.Close(), l.Model.Close()) }

func (l *loaded) generator() *generate.Generator { return generate.New(l.Adapted, l.backend) }

// modelFlags are the flags of commands that use a model.
type modelFlags struct {
	model, template, precision string
	adapter                    []string // directories, each with =WEIGHT behind it or not
}

func (f *modelFlags) add(c *cobra.Command) {
	c.Flags().StringVarP(&f.model, "model", "m", embedded, "GGUF file or model directory; "+embedded+" is the embedded one")
	f.addAdapter(c)
	c.Flags().StringVar(&f.template, "chat-template", "", "chat template: a file, or a built-in name")
	c.Flags().StringVar(&f.precision, "precision", string(engine.Mixed), "accuracy of the products: fp32 or mixed")
}

// addAdapter adds the flag of the adapters.
func (f *modelFlags) addAdapter(c *cobra.Command) {
	c.Flags().StringArrayVarP(&f.adapter, "adapter", "a", nil, "adapter directory in PEFT's layout; with several, or as DIR=WEIGHT, their weighted sum")
}

// open loads a model with its adapter.
func (f *modelFlags) open(a *app) (l *loaded, err error) {
	path, err := modelPath(f.model)
	if err != nil {
		return nil, err
	}
	m, err := model.Open(path)
	if err != nil {
		return nil, err
	}
	l = &loaded{}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if l.text, err = tune.OpenText(path, m.File, f.template); err != nil {
		return nil, err
	}
	if err := f.adapt(a, m, l); err != nil {
		return nil, err
	}
	l.backend, err = engine.Open("cpu", engine.Options{Precision: engine.Precision(f.precision)})
	return l, err
}

// adapt loads the weights, with those of the adapter where there is one.
func (f *modelFlags) adapt(a *app, m *model.Model, l *loaded) (err error) {
	if len(f.adapter) == 0 {
		l.Adapted, err = m.Adapt(0)
		return err
	}
	ad, err := openAdapters(f.adapter)
	if err != nil {
		return err
	}
	defer ad.Close()
	if l.text.Template != nil && ad.Contract != "" && ad.Contract != l.text.Template.Contract() {
		a.say("warning: the adapter was trained behind another chat template; its answers may be worse")
	}
	if l.graft, err = ad.Options.Graft(m.Map()); err != nil {
		return fmt.Errorf("adapter %s: %w", ad.Dir, err)
	}
	if l.Adapted, err = m.Adapt(0, l.graft); err != nil {
		return err
	}
	return ad.Fill(l.Store, l.Sites)
}

// openAdapters opens one adapter, or the weighted sum of several.
func openAdapters(list []string) (*tune.Adapter, error) {
	if dir, weight, err := splitWeight(list[0]); len(list) == 1 && (err != nil || weight == 1) {
		if err != nil {
			return nil, err
		}
		return tune.OpenAdapter(dir)
	}
	u, err := combine(list, methods.Combination{Kind: "cat"})
	if err != nil {
		return nil, err
	}
	return u.Adapter(), nil
}

// combine opens adapters, each given as DIR or DIR=WEIGHT, and makes them one.
func combine(list []string, how methods.Combination) (*methods.Updates, error) {
	var updates []*methods.Updates
	var weights []float64
	for _, text := range list {
		dir, weight, err := splitWeight(text)
		if err != nil {
			return nil, err
		}
		u, err := methods.OpenUpdates(dir)
		if err != nil {
			return nil, err
		}
		updates, weights = append(updates, u), append(weights, weight)
	}
	return methods.Combine(updates, weights, how)
}

// splitWeight takes DIR=WEIGHT apart; the weight is 1 where none is given, or where a directory has that whole name.
func splitWeight(text string) (dir string, weight float64, err error) {
	i := strings.LastIndexByte(text, '=')
	if _, err := os.Stat(text); i < 0 || err == nil {
		return text, 1, nil
	}
	weight, err = strconv.ParseFloat(text[i+1:], 64)
	if err != nil || math.IsNaN(weight) || math.IsInf(weight, 0) {
		return "", 0, usageError{fmt.Errorf("adapter %s: want DIR or DIR=WEIGHT with a number, have %q", text, text[i+1:])}
	}
	return text[:i], weight, nil
}

// general returns the embedded text for the general loss.
func general() *strings.Reader { return strings.NewReader(recipes.General()) }
