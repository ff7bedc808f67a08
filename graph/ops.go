package graph

// Ops returns a zero value of every operation. An engine's tests walk the list, so that none goes without a kernel.
func Ops() []Op {
	return []Op{
		Input{}, Param{}, State{}, Constant{}, Pick{}, StopGradient{},
		Unary{}, UnaryGrad{}, Affine{}, Clamp{}, Binary{}, Where{},
		Reduce{},
		ReshapeTo{}, Transpose{}, Slice{}, Pad{}, Concat{}, Broadcast{}, GatherRows{}, ScatterRows{},
		Linear{}, LinearT{}, Outer{}, MatMul{},
		Embed{}, EmbedGrad{}, RMSNorm{}, RMSNormGrad{}, LayerNorm{}, LayerNormGrad{}, RoPE{},
		Attention{}, AttentionGrad{}, GatedAct{}, GatedActGrad{}, Dropout{},
		TokenLogProb{}, TokenLogProbGrad{},
		CacheAppend{}, CachedAttention{},
	}
}
