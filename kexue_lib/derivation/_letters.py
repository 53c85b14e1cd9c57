"""The letters of matrix algebra: what `given` says of matrices, transposition, inverses and powers."""

from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp

from kexue_lib.derivation._cannot import Cannot, NoRule
from kexue_lib.derivation._words import (
    Letter,
    Rewriting,
    TooManySteps,
    Words,
    order,
    plus,
    scaled,
    times,
)

Prover = Callable[[Any, Sequence[Any]], bool]

ONE: Words = {(): sp.S.One}
_SYMMETRIC = (sp.Q.symmetric, sp.Q.diagonal, sp.Q.positive_definite)
_INVERTIBLE = (sp.Q.invertible, sp.Q.positive_definite, sp.Q.orthogonal, sp.Q.unitary)
_REAL = (sp.Q.real_elements, sp.Q.integer_elements, sp.Q.positive_definite)


def cannot_prove(statement: Any, given: Sequence[Any]) -> bool:
    """The prover that knows nothing but SymPy's assumptions and what is given word for word."""
    return statement in given or sp.sympify(statement) is sp.true or sp.simplify(statement) is sp.true


def is_matrix(expression: Any) -> bool:
    """Whether it stands for a matrix; SymPy does not say so of a derivative by a matrix and of a sum of matrices."""
    if isinstance(expression, sp.Derivative):
        return any(isinstance(variable, sp.MatrixSymbol) for variable in expression.variables)
    if isinstance(expression, sp.Sum):
        return is_matrix(expression.function)
    return bool(getattr(expression, "is_Matrix", False))


class Facts:
    """What `given` says of matrices: predicates by matrix, and the rest as equations."""

    def __init__(self, given: Sequence[Any]) -> None:
        flat = [part for fact in given for part in (fact.args if isinstance(fact, sp.And) else (fact,))]
        self.predicates = [fact for fact in flat if isinstance(fact, sp.AppliedPredicate)]
        self.equations = [fact for fact in flat if isinstance(fact, sp.Eq)]
        self.unequal = [fact.lhs - fact.rhs for fact in flat if isinstance(fact, sp.Ne) and not is_matrix(fact.lhs)]

    def says(self, matrix: Any, *names: Any) -> bool:
        """Whether one of the predicates is stated of the matrix; all but real entries speak of square matrices only."""
        if matrix.shape[0] != matrix.shape[1] and not set(names) <= set(_REAL):
            return False
        return any(fact.function in names and fact.arg == matrix for fact in self.predicates)

    def stated(self, *names: Any) -> list[Any]:
        """The matrices of which one of the predicates is stated."""
        return [fact.arg for fact in self.predicates if fact.function in names]


class Letters:
    """Matrix expressions as polynomials in letters that do not commute, scalars of matrices as commuting atoms.

    Every rule that it uses is an equation between defined matrices: an inverse in the statement counts as one that
    exists (`undefined_inverses` says which do not follow from `given`), a matrix symbol as any complex matrix of its
    shape. An entry M[i, j] is the word e_i' M e_j, an inner product the 1×1 word x' y, and both commute.
    """

    real_names = _REAL

    def __init__(self, given: Sequence[Any], prove: Prover = cannot_prove) -> None:
        self.given, self.prove, self.facts = list(given), prove, Facts(given)
        self.atoms: dict[Any, sp.Dummy] = {}
        self.meaning: dict[sp.Dummy, Any] = {}  # of each atom: ("scalar" | "trace" | "det", word) or ("sum", ...)
        self.composite: dict[Any, Words] = {}  # base of the inverse of a sum -> that sum
        self.powers: dict[Any, tuple[Words, sp.Expr]] = {}  # base of a power of symbolic exponent -> base, exponent
        self.inverted: set[Any] = set()  # symbols whose inverse is there
        self.units: dict[Any, Any] = {}  # base of a unit vector -> its index; of the vector of ones -> None
        self.ranges: dict[Any, Any] = {}  # index of a sum -> its range
        self.scalar_rules: list[tuple[sp.Dummy, sp.Expr]] = []
        self.shifts: dict[tuple[Any, sp.Expr], sp.Expr] = {}
        self._letters: set[Letter] = set()
        self._turns = 0
        self.rewriting = Rewriting(self.tidy, self.nonzero)

    # --- equations -----------------------------------------------------------------------------------------------

    def learn(self, *expressions: Any) -> None:
        """Take in `given` and the letters of the expressions, and complete the rules."""
        for _ in range(2):
            for fact in self.facts.predicates:
                self._learn_predicate(fact)
            for equation in self.facts.equations:
                self._learn_equation(equation)
            for expression in expressions:
                self.words(expression) if is_matrix(expression) else self.scalar(expression)
            self.rewriting.complete()

    def _learn_predicate(self, fact: Any) -> None:
        matrix, name = fact.arg, fact.function
        if not is_matrix(matrix):
            return
        try:
            if name in _INVERTIBLE:
                words = self.words(matrix)
                if words and matrix.shape[0] != 1:
                    self.inverse(words, matrix.shape[0])
            if isinstance(matrix, sp.MatrixSymbol):
                return  # in the letters
            words = self.words(matrix)
            if name in _SYMMETRIC:
                self._equation(plus(self.transposed(words), scaled(sp.S.NegativeOne, words)))
            if name == sp.Q.orthogonal:
                self._equation(plus(times(self.transposed(words), words), scaled(sp.S.NegativeOne, ONE)))
                self._equation(plus(times(words, self.transposed(words)), scaled(sp.S.NegativeOne, ONE)))
        except Cannot:
            return

    def _learn_equation(self, equation: Any) -> None:
        try:
            if is_matrix(equation.lhs):
                words = plus(self.words(equation.lhs), scaled(sp.S.NegativeOne, self.words(equation.rhs)))
                if set(words) == {()}:
                    self._scalar_equation(words[()])
                else:
                    self._equation(words)
                    self._cyclic(words)
            elif equation.has(sp.MatrixExpr):
                self._scalar_equation(self.scalar(equation.lhs - equation.rhs))
        except (Cannot, TooManySteps):
            return

    def _equation(self, words: Words) -> None:
        """An equation holds transposed and conjugated as well."""
        conjugated = self.conjugated(words)
        for form in (words, self.transposed(words), conjugated, self.transposed(conjugated)):
            self.rewriting.add(form)

    def _cyclic(self, words: Words) -> None:
        """Square letters whose product is a number c ≠ 0 are invertible, and may be turned round: BA = c as well."""
        if len(words) != 2 or () not in words:
            return
        word = max(words, key=len)
        if all(letter.rows == letter.cols for letter in word) and self.nonzero(words[()]) and self.nonzero(words[word]):
            for at in range(1, len(word)):
                self._equation({word[at:] + word[:at]: words[word], (): words[()]})

    def _scalar_equation(self, gap: sp.Expr) -> None:
        """Solve for an atom whose coefficient is a number: no division by what may vanish."""
        gap = sp.expand(self.eliminated(gap))
        for atom in sorted(gap.atoms(sp.Dummy) & set(self.meaning), key=sp.default_sort_key, reverse=True):
            slope: sp.Expr = gap.coeff(atom, 1)
            rest = gap - slope * atom
            if slope.is_number and slope.is_nonzero and not sp.expand(rest).has(atom):
                self.scalar_rules.append((atom, sp.expand(-rest / slope)))
                return

    def eliminated(self, scalar: sp.Expr) -> sp.Expr:
        """A scalar with the scalar equations of `given` put in, and det² = 1 for orthogonal matrices."""
        for atom, value in self.scalar_rules:
            scalar = scalar.xreplace({atom: value})
        roots = [a for a, m in self.meaning.items() if m[0] == "det" and self.facts.says(m[1], sp.Q.orthogonal)]
        return scalar.replace(
            lambda e: e.is_Pow and e.base in roots and e.exp.is_Integer, lambda e: e.base ** (int(e.exp) % 2)
        )

    def mentions(self, content: Any, symbols: set[Any]) -> bool:
        """Whether a symbol, or matrix symbol, occurs in a letter, word, atom or expression, however deep."""
        if isinstance(content, (tuple, list)):
            return any(self.mentions(part, symbols) for part in content)
        expression = content.base if isinstance(content, Letter) else content
        if expression.free_symbols & symbols:
            return True
        atoms = expression.atoms(sp.Dummy) & set(self.meaning)
        return any(self.mentions(self.meaning[atom][1], symbols) for atom in atoms)

    def nonzero(self, coefficient: sp.Expr) -> bool:
        """Whether a commuting coefficient vanishes nowhere."""
        if coefficient.is_number or coefficient.is_nonzero:
            return bool(coefficient.is_nonzero)
        return bool(self.prove(sp.Ne(coefficient, 0), self.given))

    # --- letters -------------------------------------------------------------------------------------------------

    def letter(self, base: Any, t: bool = False, c: bool = False, i: bool = False) -> Letter:
        """The letter of a matrix symbol in the form that the facts about it choose."""
        says = self.facts.says
        if c and says(base, *_REAL):
            c = False
        if c and says(base, sp.Q.hermitian):  # conj(A) = A'
            t, c = not t, False
        if c and says(base, sp.Q.unitary):  # conj(A) = (A^-1)'
            t, c, i = not t, False, not i
        if t and (isinstance(base, sp.DiagMatrix) or says(base, *_SYMMETRIC)):
            t = False
        if t and says(base, sp.Q.orthogonal):
            t, i = False, not i
        rows, cols = base.shape[::-1] if t ^ i else base.shape
        letter = Letter(base, rows, cols, t, c, i)
        if letter not in self._letters:
            self._letters.add(letter)
            self._introduce(letter)
        return letter

    def _introduce(self, letter: Letter) -> None:
        base, says = letter.base, self.facts.says
        one = scaled(sp.S.NegativeOne, ONE)
        if letter.inverted or says(base, *_INVERTIBLE):
            self.inverted.add(base)
            other = self.letter(base, letter.transposed, letter.conjugated, not letter.inverted)
            for pair in ((letter, other), (other, letter)):
                self.rewriting.add(plus({pair: sp.S.One}, one))
        involution = (sp.Q.orthogonal, sp.Q.unitary) if says(base, sp.Q.hermitian) else (sp.Q.orthogonal,)
        if says(base, *involution) and (says(base, *_SYMMETRIC) or says(base, sp.Q.hermitian)):
            self.rewriting.add(plus({(letter, letter): sp.S.One}, one))
        if self._is_diagonal(letter):
            for other in sorted(self._letters - {letter}, key=lambda known: known.key):
                if self._is_diagonal(other) and other.rows == letter.rows:
                    self._commute({(letter,): sp.S.One}, {(other,): sp.S.One})

    def _is_diagonal(self, letter: Letter) -> bool:
        base = self.powers[letter.base][0] if letter.base in self.powers else {(letter,): sp.S.One}
        return all(isinstance(x.base, sp.DiagMatrix) or self.facts.says(x.base, sp.Q.diagonal) for w in base for x in w)

    def _commute(self, one: Words, other: Words) -> None:
        self.rewriting.add(plus(times(one, other), scaled(sp.S.NegativeOne, times(other, one))))

    def flipped(self, letter: Letter, t: bool, c: bool) -> Words:
        """A letter transposed and/or conjugated."""
        base = letter.base
        if base in self.units:
            return {(letter.turned() if t else letter,): sp.S.One}
        if base in self.composite:
            inner = self._turned(self.composite[base], t, c)
            return self.inverse(inner, letter.rows)
        if base in self.powers:
            words, exponent = self.powers[base]
            return self.power(self._turned(words, t, c), exponent, letter.rows)
        return {(self.letter(base, letter.transposed ^ t, letter.conjugated ^ c, letter.inverted),): sp.S.One}

    def _turned(self, words: Words, t: bool, c: bool) -> Words:
        parts = []
        for word, coefficient in words.items():
            product = {(): self._conjugated_scalar(coefficient) if c else coefficient}
            for letter in reversed(word) if t else word:
                product = times(product, self.flipped(letter, t, c))
            parts.append(product)
        return plus(*parts)

    def transposed(self, words: Words) -> Words:
        """(A B)' = B' A' word by word."""
        return self._turned(words, True, False)

    def conjugated(self, words: Words) -> Words:
        """Entrywise complex conjugation."""
        return self._turned(words, False, True)

    def _conjugated_scalar(self, scalar: sp.Expr) -> sp.Expr:
        swaps = {}
        for atom in sorted(scalar.atoms(sp.Dummy) & set(self.meaning), key=sp.default_sort_key):
            if not atom.is_real:
                kind, content = self.meaning[atom]
                if kind not in ("scalar", "trace"):
                    raise NoRule("the conjugate of this scalar")
                turned = self._turned({content: sp.S.One}, False, True)
                swaps[sp.conjugate(atom)] = self.trace(turned, sp.S.Zero)
        return sp.conjugate(scalar).xreplace(swaps)

    def inverse(self, words: Words, size: Any) -> Words:
        """The inverse, a letter of its own for a sum: W X = X W = 1."""
        words = self.rewriting.reduced(words)
        if not words:
            raise NoRule("the inverse of zero")
        if size == 1:
            return {(): 1 / self.trace(words, size)}
        if len(words) == 1:
            ((word, factor),) = words.items()
            if all(letter.rows == letter.cols for letter in word):
                product = {(): 1 / factor}
                for letter in reversed(word):
                    product = times(product, self._inverse_letter(letter))
                return product
        head = max(words, key=order)
        factor = words[head] if self.nonzero(words[head]) else sp.S.One
        words = scaled(1 / factor, words)
        base = self.expression(words, size, size)
        letter = Letter(base, size, size, inverted=True)
        if base not in self.composite:
            self.composite[base] = words
            for product in (times({(letter,): sp.S.One}, words), times(words, {(letter,): sp.S.One})):
                self.rewriting.add(plus(product, scaled(sp.S.NegativeOne, ONE)))
        return {(letter,): 1 / factor}

    def _inverse_letter(self, letter: Letter) -> Words:
        if letter.base in self.composite:
            return self.composite[letter.base]
        if letter.base in self.powers:
            raise NoRule("the inverse of a power")
        return {(self.letter(letter.base, letter.transposed, letter.conjugated, not letter.inverted),): sp.S.One}

    def power(self, words: Words, exponent: sp.Expr, size: Any) -> Words:
        """A power: a whole number multiplies out; A^s of symbolic s is a letter that commutes with A."""
        if exponent.is_Integer:
            base = self.inverse(words, size) if exponent < 0 else words
            product = ONE
            for _ in range(abs(int(exponent))):
                product = self.rewriting.reduced(times(product, base))
            return product
        words = self.rewriting.reduced(words)
        if set(words) <= {()}:
            return {(): words.get((), sp.S.Zero) ** exponent}
        base = self.expression(words, size, size)
        whole, rest = exponent.as_coeff_Add()
        if not whole.is_Integer:
            raise NoRule("a power whose exponent is no integer")
        invertible = all(letter.base in self.inverted for word in words for letter in word) and len(words) == 1
        if not invertible:  # A^(s-1) is the letter and A^s = A^(s-1) A, so that no inverse comes in
            lowest = self.shifts[(base, rest)] = min(whole, self.shifts.get((base, rest), sp.S.Zero))
            whole, rest = whole - lowest, rest + lowest
        if not (rest.is_integer and self._nonnegative(rest)):
            raise NoRule("a power whose exponent may be negative")
        return times(self._opaque_power(words, base, rest, size), self.power(words, whole, size))

    def _nonnegative(self, exponent: sp.Expr) -> bool:
        return bool(exponent.is_nonnegative or self.prove(exponent >= 0, self.given))

    def _opaque_power(self, words: Words, base: Any, exponent: sp.Expr, size: Any) -> Words:
        name = sp.MatPow(base, exponent)
        letter = Letter(name, size, size)
        if name not in self.powers:
            for other, (inner, _) in list(self.powers.items()):
                if inner == words:
                    self._commute({(letter,): sp.S.One}, {(Letter(other, size, size),): sp.S.One})
            self.powers[name] = (words, exponent)
            self._letters.add(letter)
            self._introduce(letter)
            self._commute({(letter,): sp.S.One}, words)
        return {(letter,): sp.S.One}
