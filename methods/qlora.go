package methods

import (
	"tunesmith/site"
	"tunesmith/tune"
)

// QLoRA trains LoRA beside projections that are kept in 4 or 8 bits: those of a file that is in blocks already, such as
// GGUF, as they are; those of a 16- or 32-bit file quantised as they are loaded. Norms, embeddings and the projection to
// the vocabulary keep their storage.
//
//	y = deq(Q(W))·x + s · B·A·x,  gradients pass through deq(Q(W))
//
// Dettmers et al. 2023 (arXiv 2305.14314). What trains makes up for what quantisation loses, so the adapter belongs to
// the quantised base: on the original one it is off by the loss.
type QLoRA struct {
	LoRA    `yaml:",inline"`
	Storage `yaml:",inline"`
}

func init() {
	tune.Register(tune.Method{
		Axis: tune.ParametersAxis, Name: "qlora", Rate: 2e-4,
		Doc: "lora beside projections in 4 or 8 bits: a quarter of the memory of the base",
		New: func() any {
			m, _ := tune.Find(tune.ParametersAxis, "lora")
			return &QLoRA{LoRA: *m.New().(*LoRA), Storage: Storage{Kind: "nf4", Block: 64, Double: true}}
		},
	})
}

// Graft implements tune.Parameters.
func (o *QLoRA) Graft(m *site.Map) (any, error) {
	if err := o.check(m); err != nil {
		return nil, err
	}
	return o.graft(m, &o.Storage)
}
