"""What kind of character each Unicode code point is, as the split patterns of tokenizers see it.

The table is that of Unicode 16, which tiktoken 0.14 has; characters that later versions add are
"other" here, as they are there. ``tests/test_split.py`` compares it with tiktoken on all of
Unicode.
"""

from __future__ import annotations

import base64
import functools
import zlib

import numpy as np

from numbatch.kernels.tokenization.tables import read_only

__all__ = ["LETTER", "LOWER", "NEWLINE", "NUMBER", "PAGES", "SPACE", "UPPER", "class_table"]

# np.intp, not int: Numba types a plain number as a constant of its own, and would compile the
# functions that it is given to once for each.
LETTER = np.intp(1)
"""``\\p{L}``"""
NUMBER = np.intp(2)
"""``\\p{N}``"""
SPACE = np.intp(4)
"""``\\s``"""
NEWLINE = np.intp(8)
"""``[\\r\\n]``, which is SPACE too"""
UPPER = np.intp(16)
"""``[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]``"""
LOWER = np.intp(32)
"""``[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]``"""
PAGES = 0x1100
"""How many pages of 256 code points there are."""

_RUNS = 3194
# zlib in base 85: the low, middle and high bytes of the lengths of the runs of one class, then
# their classes.
_PACKED = (
    "c-rk)O>7)V74G-yw`+Q)r^n+Ndz=|hJC0+=cHA8&@dnUhv}{n6)sj6BDI5?8fdm^Z%Z1C{_Ochaae^B{d*-?~gkZUH"
    "AqON70wJy(_k?&=)qi6<v6GFn0p`{8U;VuI>ivAL><|E<2eDBjIWjPU5EKG1u-6dO5@>if!c)G_vYerNW615DzOWo~"
    "KdU8LZMhvmI8~yZ>{dM^k!dUoUVgt0D?J`{grfK4-C8b*kX{f%0^vnK_Bg4cP;5Uti~Q%{3WW2f4FtKRcbzPfrdK#0"
    "x5W0MAvb;78c~uFIU4e37htl24_eSMY3RI+15Po>K=hUwZ;2(4I=r$3=}ksqstlrmE(48-18WZJdg6#keZ-SO1!<0S"
    "al=4zKh1>)^$GeWPbhLAv0~6-PL`h{tgiG$YQ@CRgyh3ok{@@H6e|Rgm+1mYEV&O=M(kO{h3z3LK&Ran+GSGLuBJDx"
    ">{`->)@!=~@Z-kw_cNrMU`S}ht%6(VM?jGBBzeK9)?-VgKA@rz3OCS_w%*RDLnsaAGP>|uqC0U40fmbogM11@lzs0k"
    "jvCf^pGI4-9>T5dJ{T!Ew|1b7wj)~2al>-LZBq9Rtx#^=7F}ue6~isMzlJRAvu^i3O7;*F7>T=#Y1QN50&Dd!YLnU+"
    "U7y;$02*l$$_pbOD1mDv;<j0(9Y@AYNSz%%lC4Wa!EYECBh4~x(5t!FOEfb{7_mtk%}ys;?`y-DS*I<6*hWU-vB=3l"
    "<X^G##Wt*6I)s;z!t<A)C54hEa?i3`>yGQxTDYK~U`0VOjht&C+(&Cn1A8_-Q3^7Bdp}LUfiSw#AY>6e_Q!3o3gGmy"
    "PcC@$g*OL3nmo+10>Aw<$_8ZTZ&Y-OF>Bo-XkSqf!!T4Z+opT)2b-hIp`^^C3Ul9q$k&03ZTJS`W}0=UW}+dUn#=Lw"
    "uMdCn+Er|`uEG9Os>H#ZqBGt$cqyC(=1*%YeFW?AiHt>2hniZ$v6{Nb>~fDpl$XGyxgO!Qo-wi~nVoMgXdJeqG2?rk"
    "4#f?{juEic2_29cIV4!QX5#`a+QAaTmNmYy@hP2;wt)~&-n*#5&i`dJ<T-x_zrUd(AuN!!ou*c^hw0nBL%g{e@ou+!"
    "DByzycZg{{V2&HIixHh?7Qn)JXYIXcH@cPJ58?eW%VSvKQy%uoN@7EZ39fT`yRy0YCdpjq>wHsRk6IKr7Wa!MyB-~c"
    "1EZHDT!HX)TVi%B#^4b35Y?&<Gm<65K=RS;S16mhc-5kvpuAuNV2tY8kZ^3wrW!6F7u}m?fO<jb-ca4UbFkmuS0q~#"
    "&dC9zO%DFFN|MMrU3S372K1oC>9}!aQT2x*yAii0wx)%Ax22%Htc+yqWOAFNnhqQgvaG{Nwk=b@`>h@<M+A!Ss>5sA"
    "lTmw-Fp@V*99^!&+1e!pQUwq#<AP_y0hT-bSO>Ime51z&iDQ$jZ!4$ya8F@4<hYg*sJG0<cAJW<>|a>Hm`7ZFv=e`4"
    "I$ek~`Hq|mWJf|A>&wX8)_7UDLINvbHWiRNG_<Y~l=trZK8=kG;gao&$K<R5bnaMfH+;+~D_q*GO@-ToGB+2vO((*B"
    "+CbaD*C1Zp{@Hhbko@+IZ^c;`WNdyezVgweXFk5ARw+)uN|&uUnF^`=5X(ie@T*;BKAuj8-@8j%9w^>Ev?1HV&L{fO"
    "miZ@l7P}aeLlHV$|Cqlm+ALIbta;1Gt2mqpCbdR2;Xh^X^`rj7<qt-qk%Hc6<W8b!x39S?%B|4|T`5*zU#y84y*B6q"
    "F2gd&lWxTAT5!OxY3RT}Kzz?YU&=o!NYFV|yqdzhyG$u0cYSFB$qqM<F3>fhg#CwdxE{mrFjQM>YxHS`pSLOg#xBIa"
    ";p7m1+&2E$E6dX_EBYG%gVrY8O)!v9B@vK(x&3z||2qAg{0qL{$>Vo^G5OnF@y&bx>IQR~)12mXR)RCn#JRElFA3en"
    "|Cd5JfaT!+)2*1(^Pp{eOX1Ty@I?pAoL;)jX7*-+0-53fNA!^R^xhs?7HdZ*L0G+Z3k-b0pj#3@gK6MNyJXK*F%$3)"
    "1N(=@AQ%T2qF4yJe-8dVkJ35KX-;#R)12lsr#a1OPUlR<{%<Pc5&e~fK@z0&<UvmFX@I%wO41-rUh<Z^-)AH{&4aRK"
    "uEUxvPp#>EOWpOv7MxX@7xA(;+I3D5lvT|cC&)9Ti{7crUFgha-)%R#F*naQJFzgVUs7~qJ<u4YyO)&t(9J8!jfpcF"
    "p<j0br-DuJ*ztM>23Z~)Z{;LACp&SqUw>pT$N6W)@@kJ{ML#m5TDc4h`xUF}mgQMF6RT&js$fv=og7p7z&Ff_V78Hc"
    "(spOJZUwlxLC&3_-DYZsmM`7_BomKl=v?R<7VF$BEEUcDI;(26S6bp@FA3^s32cI<`F};)oLe$h&l-{{RHrBPmye`+"
    "@}l`%@`g_uyz1saFi3r=2rx-8@a;sPei0j{8#&xnvDAm*Nl9u$klU?cR>bH`MqzO;TQ!1t@RTLOWz~~s<W7m_TbPb~"
    "2hZdI@740tZo{Tify4z4<u%G>Sf;rHAqOO7`j?Q@gq9!=nn0hs!eKEct=QN7X^>}+!<+)rOWZlJVSzVpg^y~?8whMe"
    "w#lQ4@J1j#hI3vP9s5#0u|jRHWFfRd_nD=MJ9Rlw%q@oHX#?g9GkR?+t2+~xWekI|I_8xNywob5J<2!BLS>NSC9uTZ"
    "=IpX!WJRGa9G_KCUE@3!<5(9Rf{+xCuxrFckX4aVaB8@woG??_D|O09Da>6I&f>69WO$X-d2NLZEB07draIrT&^W6L"
    "@v&3I$t5s5(rQd}+0-~624#j-fZD{?StPG<dghiM5$F(k=D6eIp|qn9BrIxu9mdu{Srhf})V-eGPUeyY{{gg^t#b"
)


@functools.cache
def class_table() -> np.ndarray:
    """Return the classes in two steps: uint8, read-only.

    The class of code point ``c`` is ``table[PAGES + (table[c >> 8] << 8) + (c & 255)]``.
    """
    columns = np.frombuffer(zlib.decompress(base64.b85decode(_PACKED)), np.uint8)
    low, middle, high, kinds = columns.reshape(4, _RUNS)
    lengths = low.astype(np.int64) | middle.astype(np.int64) << 8 | high.astype(np.int64) << 16
    pages = np.repeat(kinds, lengths).reshape(PAGES, 256)
    # Most pages are like the one before, which NumPy sees sooner.
    changes = np.flatnonzero((pages[1:] != pages[:-1]).any(axis=1)) + 1
    firsts = np.concatenate([[0], changes])
    distinct: dict[bytes, int] = {}
    index = [distinct.setdefault(page.tobytes(), len(distinct)) for page in pages[firsts]]
    indices = np.repeat(index, np.diff(firsts, append=PAGES)).astype(np.uint8)
    packed = np.frombuffer(indices.tobytes() + b"".join(distinct), np.uint8)
    return read_only(packed)
