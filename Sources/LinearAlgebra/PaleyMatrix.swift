/// Hadamard matrices of sizes that are no power of two (Paley 1933): rows of ±1, pairwise
/// orthogonal, the first row all ones.
enum PaleyMatrix {
  /// The largest size that is tried; larger ones cost more than they are worth.
  static let largest = 1024

  /// Row by row; nil where neither of Paley's constructions gives the size.
  static func make(_ size: Int) -> [Float]? {
    guard size >= 4, size <= largest, size % 4 == 0 else { return nil }
    let matrix: [Float]
    if let field = FiniteField(size - 1), field.order % 4 == 3 {
      matrix = first(field)
    } else if let field = FiniteField(size / 2 - 1), field.order % 4 == 1 {
      matrix = second(field)
    } else {
      return nil
    }
    return normalized(matrix, size)
  }

  /// `I + S`, where S borders the residue matrix of a field with q ≡ 3 (mod 4) skew-symmetrically.
  private static func first(_ field: FiniteField) -> [Float] {
    let q = field.order, size = q + 1
    var matrix = [Float](repeating: 1, count: size * size)
    for i in 0..<q {
      matrix[(i + 1) * size] = -1
      for j in 0..<q {
        let character = field.character(field.subtract(i, j))
        matrix[(i + 1) * size + j + 1] = Float(character + (i == j ? 1 : 0))
      }
    }
    return matrix
  }

  /// Each entry of the bordered residue matrix of a field with q ≡ 1 (mod 4) becomes 2 × 2 entries.
  private static func second(_ field: FiniteField) -> [Float] {
    let q = field.order, half = q + 1, size = 2 * half
    var matrix = [Float](repeating: 0, count: size * size)
    for i in 0..<half {
      for j in 0..<half {
        let entry =
          i == 0 || j == 0
          ? (i == j ? 0 : 1) : field.character(field.subtract(i - 1, j - 1))
        let square: [Float] =
          entry == 0 ? [1, -1, -1, -1] : [Float(entry), Float(entry), Float(entry), -Float(entry)]
        for k in 0..<4 { matrix[(2 * i + k / 2) * size + 2 * j + k % 2] = square[k] }
      }
    }
    return matrix
  }

  /// Columns change sign so that the first row is all ones.
  private static func normalized(_ matrix: [Float], _ size: Int) -> [Float] {
    var matrix = matrix
    for column in 0..<size where matrix[column] < 0 {
      for row in 0..<size { matrix[row * size + column] *= -1 }
    }
    return matrix
  }
}

/// The field of p^e elements for e up to 3; an element is a polynomial over the integers modulo p,
/// written as digits of a number to the base p.
struct FiniteField {
  let order: Int
  private let prime: Int
  private let degree: Int
  private let isSquare: [Bool]

  /// Nil where the order is no such power of an odd prime.
  init?(_ order: Int) {
    guard order > 2, order % 2 == 1 else { return nil }
    var prime = 3
    while order % prime != 0 { prime += 2 }
    var (degree, power) = (1, prime)
    while power < order {
      power *= prime
      degree += 1
    }
    guard power == order, degree <= 3 else { return nil }
    guard let tail = Self.irreducible(prime, degree) else { return nil }
    var isSquare = [Bool](repeating: false, count: order)
    for element in 1..<order {
      isSquare[Self.product(element, element, prime, degree, tail)] = true
    }
    self.order = order
    self.prime = prime
    self.degree = degree
    self.isSquare = isSquare
  }

  /// 0 for 0, 1 for squares, -1 for others.
  func character(_ element: Int) -> Int { element == 0 ? 0 : isSquare[element] ? 1 : -1 }

  func subtract(_ a: Int, _ b: Int) -> Int {
    var (a, b, place, result) = (a, b, 1, 0)
    for _ in 0..<degree {
      result += (a % prime - b % prime + prime) % prime * place
      a /= prime
      b /= prime
      place *= prime
    }
    return result
  }

  /// The lower coefficients of a monic polynomial without roots, which up to degree 3 is irreducible.
  private static func irreducible(_ prime: Int, _ degree: Int) -> [Int]? {
    guard degree > 1 else { return [0] }
    let count = (0..<degree).reduce(1) { product, _ in product * prime }
    for number in 1..<count {
      let tail = digits(number, prime, degree)
      let hasRoot = (0..<prime).contains { x in
        ([1] + tail.reversed()).reduce(0) { ($0 * x + $1) % prime } == 0
      }
      if !hasRoot { return tail }
    }
    return nil
  }

  private static func digits(_ number: Int, _ prime: Int, _ degree: Int) -> [Int] {
    var (rest, digits) = (number, [Int]())
    for _ in 0..<degree {
      digits.append(rest % prime)
      rest /= prime
    }
    return digits
  }

  private static func product(_ a: Int, _ b: Int, _ prime: Int, _ degree: Int, _ tail: [Int]) -> Int
  {
    if degree == 1 { return a * b % prime }
    let (a, b) = (digits(a, prime, degree), digits(b, prime, degree))
    var coefficients = [Int](repeating: 0, count: 2 * degree - 1)
    for i in 0..<degree {
      for j in 0..<degree { coefficients[i + j] = (coefficients[i + j] + a[i] * b[j]) % prime }
    }
    for power in stride(from: 2 * degree - 2, through: degree, by: -1) {
      let leading = coefficients[power]
      for i in 0..<degree {
        let at = power - degree + i
        coefficients[at] = (coefficients[at] + (prime - tail[i]) * leading) % prime
      }
    }
    return coefficients[..<degree].reversed().reduce(0) { $0 * prime + $1 }
  }
}
