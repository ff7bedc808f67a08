#include "textflag.h"

// func toF16AVX2(dst []uint16, a []float32)
TEXT ·toF16AVX2(SB), NOSPLIT, $0-48
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ a_base+24(FP), SI
	MOVL $0x477fe000, AX // 65504
	VMOVD AX, X1
	VBROADCASTSS X1, Y1
	MOVL $0xc77fe000, AX
	VMOVD AX, X2
	VBROADCASTSS X2, Y2
	SHRQ $3, CX
	JEQ  done

loop:
	VMOVUPS (SI), Y0
	VMINPS  Y0, Y1, Y0 // NaN passes, being the second operand of Intel's order
	VMAXPS  Y0, Y2, Y0
	VCVTPS2PH $0, Y0, (DI)
	ADDQ $32, SI
	ADDQ $16, DI
	DECQ CX
	JNE  loop

done:
	VZEROUPPER
	RET

// func fromF16AVX2(dst []float32, a []uint16)
TEXT ·fromF16AVX2(SB), NOSPLIT, $0-48
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ a_base+24(FP), SI
	SHRQ $3, CX
	JEQ  done

loop:
	VCVTPH2PS (SI), Y0
	VMOVUPS Y0, (DI)
	ADDQ $16, SI
	ADDQ $32, DI
	DECQ CX
	JNE  loop

done:
	VZEROUPPER
	RET
