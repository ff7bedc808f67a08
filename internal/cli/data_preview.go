package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"tunesmith/data"
	"tunesmith/data/inspect"
	"tunesmith/internal/atomicfile"
)

func (a *app) dataPreview() *cobra.Command {
	var f dataFlags
	var most int
	var problems, ids bool
	var page string
	c := &cobra.Command{
		Use:     "preview SOURCE...",
		Short:   "Show, token by token, what would be trained",
		Example: "  tunesmith data preview run.yaml\n  tunesmith data preview train.jsonl -m model.gguf --html preview.html",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in, err := f.read(args)
			if err != nil {
				return err
			}
			if f.model == "" {
				f.model = embedded
			}
			l, err := f.lens(in)
			if err != nil {
				return err
			}
			defer l.Close()
			if page != "" {
				return a.previewPage(c, in, l, page, most)
			}
			return a.preview(c, in, l, most, problems, ids)
		},
	}
	f.add(c)
	c.Flags().IntVarP(&most, "examples", "n", 3, "examples shown")
	c.Flags().BoolVar(&problems, "problems", false, "list everything that is wrong with the data, not only the first ten")
	c.Flags().BoolVar(&ids, "ids", false, "show the tokens' ids")
	c.Flags().StringVar(&page, "html", "", "write the examples as a page with coloured tokens")
	return c
}

// previewPage writes what preview shows as a page.
func (a *app) previewPage(c *cobra.Command, in *input, l *lens, path string, most int) error {
	ledger := &data.Ledger{Mode: data.Skip}
	x, err := (&ruleFlags{threshold: 0.8, words: 13}).inspector(in, l, ledger, most)
	if err != nil {
		return err
	}
	if err := x.Run(c.Context(), in.sources, ledger, nil); err != nil {
		return err
	}
	return a.writePage(path, in.title, x.Report(), l)
}

// writePage writes a report as HTML.
func (a *app) writePage(path, title string, r *inspect.Report, l *lens) error {
	text := func(int32) string { return "" }
	if l != nil {
		text = l.text.Bytes
	}
	if err := atomicfile.Write(path, func(w io.Writer) error { return r.HTML(w, title, a.lang, text) }); err != nil {
		return err
	}
	a.say("wrote %s", path)
	return nil
}

// preview renders data and shows the first examples and what was wrong.
func (a *app) preview(c *cobra.Command, in *input, l *lens, most int, problems, ids bool) error {
	ledger := &data.Ledger{Mode: data.Skip}
	store := data.NewTempStore(64 << 20)
	defer store.Close()
	o := data.LoadOptions{MaxLength: l.limit, Overlength: data.KeepStart}
	if in.run != nil {
		o.Overlength = in.run.Overlength
	}
	if err := data.Load(c.Context(), in.sources, l.render, o, ledger, store, nil); err != nil {
		return err
	}
	stats, _ := store.Stats()
	if a.json {
		var examples [][]data.Token
		for i := range min(most, store.Len()) {
			e, err := store.Example(i)
			if err != nil {
				return err
			}
			examples = append(examples, data.Preview(e, l.text.Bytes))
		}
		return a.result(map[string]any{"examples": examples, "stats": stats, "problems": ledger.Problems()})
	}
	trained, rest := lipgloss.NewStyle(), lipgloss.NewStyle()
	if a.colour(a.out) {
		trained, rest = trained.Foreground(lipgloss.Color("10")), rest.Faint(true)
	}
	for i := range min(most, store.Len()) {
		e, err := store.Example(i)
		if err != nil {
			return err
		}
		list := data.Preview(e, l.text.Bytes)
		a.say("%s: %d tokens, %d trained", e.Pos, len(e.IDs), e.Supervised())
		a.say("%s\n", tokens(list, a.colour(a.out), trained, rest))
		if ids {
			a.say("%s", idTable(a, list))
		}
	}
	a.say("%d examples, %d tokens, %d trained; lengths: median %d, 99 %% up to %d, longest %d", stats.Examples, stats.Tokens, stats.Supervised, stats.Lengths.Median, stats.Lengths.P99, stats.Lengths.Max)
	if problems {
		for _, p := range ledger.Problems() {
			a.say("%v", p.Error())
		}
		return nil
	}
	a.problems(ledger)
	return nil
}

// tokens shows trained tokens in colour, or, without colours, between ⟦ and ⟧.
func tokens(list []data.Token, colour bool, trained, rest lipgloss.Style) string {
	var b strings.Builder
	for i := 0; i < len(list); {
		j := i
		var part []byte
		for j < len(list) && list[j].Train == list[i].Train {
			part = append(part, list[j].Text...)
			j++
		}
		text := strings.ToValidUTF8(string(part), "\ufffd")
		switch {
		case colour && list[i].Train:
			b.WriteString(paint(trained, text))
		case colour:
			b.WriteString(paint(rest, text))
		case list[i].Train:
			b.WriteString("⟦" + text + "⟧")
		default:
			b.WriteString(text)
		}
		i = j
	}
	return b.String()
}

// paint styles a text line by line, so that its line breaks stay as they are.
func paint(s lipgloss.Style, text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = s.Render(l)
		}
	}
	return strings.Join(lines, "\n")
}

// idTable lists tokens with their ids.
func idTable(a *app, list []data.Token) string {
	var rows [][]string
	for _, t := range list {
		mark := ""
		if t.Train {
			mark = "trained"
		}
		rows = append(rows, []string{fmt.Sprint(t.ID), strconv.Quote(t.Text), mark})
	}
	return a.grid([]string{"id", "token", ""}, rows)
}
