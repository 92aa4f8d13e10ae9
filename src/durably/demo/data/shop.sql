-- The shop: it lives in the same database as the ledger of the runs, so that a transactional tool's
-- writes here and its recorded result commit together. Dates are relative to today. Written for
-- SQLite; durably.demo.postgres says what PostgreSQL is told instead.

CREATE TABLE products (
    name        TEXT PRIMARY KEY,
    price_cents INTEGER NOT NULL
) STRICT;

CREATE TABLE orders (
    number       INTEGER PRIMARY KEY,
    customer     TEXT NOT NULL,
    email        TEXT NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('unpaid', 'packing', 'shipped', 'delivered', 'lost')),
    placed_on    TEXT NOT NULL,
    delivered_on TEXT,
    paid_cents   INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE order_lines (
    order_number INTEGER NOT NULL REFERENCES orders (number),
    product      TEXT NOT NULL REFERENCES products (name),
    quantity     INTEGER NOT NULL,
    unit_cents   INTEGER NOT NULL
) STRICT;

-- The shop's books: what customers paid and got back. Nothing here is unique on purpose: a
-- payment that was booked twice would show.
CREATE TABLE entries (
    id           INTEGER PRIMARY KEY,
    order_number INTEGER NOT NULL REFERENCES orders (number),
    kind         TEXT NOT NULL CHECK (kind IN ('payment', 'charge', 'refund')),
    cents        INTEGER NOT NULL,
    payment_id   TEXT NOT NULL,
    ticket       TEXT,
    booked_at    TEXT NOT NULL DEFAULT (datetime('now'))
) STRICT;

INSERT INTO products VALUES
    ('Walnut cutting board',  4800),
    ('Stoneware mug',         1650),
    ('Linen apron',           3900),
    ('Cast-iron skillet',     7400),
    ('Pour-over kettle',      8900),
    ('Burr grinder',         12900),
    ('Oak serving tray',      5600),
    ('Enamel teapot',         6400),
    ('Express shipping',      1490),
    ('Gift wrapping',          650);

INSERT INTO orders (number, customer, email, status, placed_on, delivered_on) VALUES
    (40150, 'Pia',    'pia@mail.example',    'delivered', date('now', '-41 days'), date('now', '-36 days')),
    (40163, 'Hugo',   'hugo@mail.example',   'delivered', date('now', '-99 days'), date('now', '-95 days')),
    (40177, 'Jonas',  'jonas@mail.example',  'lost',      date('now', '-29 days'), NULL),
    (40198, 'Chloe',  'chloe@mail.example',  'delivered', date('now', '-11 days'), date('now', '-2 days')),
    (40205, 'Marco',  'marco@mail.example',  'shipped',   date('now', '-9 days'),  NULL),
    (40209, 'Greta',  'greta@mail.example',  'shipped',   date('now', '-8 days'),  NULL),
    (40217, 'Ana',    'ana@mail.example',    'shipped',   date('now', '-6 days'),  NULL),
    (40222, 'Lena',   'lena@mail.example',   'delivered', date('now', '-6 days'),  date('now', '-1 days')),
    (40226, 'Nadia',  'nadia@mail.example',  'delivered', date('now', '-5 days'),  date('now', '-1 days')),
    (40231, 'Ben',    'ben@mail.example',    'packing',   date('now', '-2 days'),  NULL),
    (40240, 'Daniel', 'daniel@mail.example', 'unpaid',    date('now', '-1 days'),  NULL),
    (40244, 'Elif',   'elif@mail.example',   'packing',   date('now', '-1 days'),  NULL),
    (40251, 'Ines',   'ines@mail.example',   'packing',   date('now'),             NULL),
    (40260, 'Omar',   'omar@mail.example',   'packing',   date('now'),             NULL);

INSERT INTO order_lines VALUES
    (40150, 'Enamel teapot',        1,  6400),
    (40163, 'Cast-iron skillet',    1,  7400),
    (40177, 'Walnut cutting board', 1,  4800),
    (40177, 'Linen apron',          2,  3900),
    (40198, 'Stoneware mug',        4,  1650),
    (40198, 'Oak serving tray',     1,  5600),
    (40205, 'Pour-over kettle',     1,  8900),
    (40209, 'Burr grinder',         1, 12900),
    (40217, 'Pour-over kettle',     1,  8900),
    (40222, 'Linen apron',          1,  3900),
    (40222, 'Stoneware mug',        2,  1650),
    (40226, 'Walnut cutting board', 2,  4800),
    (40231, 'Burr grinder',         1, 12900),
    (40240, 'Cast-iron skillet',    1,  7400),
    (40240, 'Linen apron',          1,  3900),
    (40244, 'Enamel teapot',        1,  6400),
    (40251, 'Walnut cutting board', 1,  4800),
    (40260, 'Stoneware mug',        6,  1650);

-- Everybody paid in full when they ordered, except for the order that says so.
INSERT INTO entries (order_number, kind, cents, payment_id)
SELECT o.number, 'payment', sum(l.quantity * l.unit_cents), 'web_' || o.number
FROM orders AS o JOIN order_lines AS l ON l.order_number = o.number
WHERE o.status <> 'unpaid'
GROUP BY o.number
ORDER BY o.number;

-- One really was charged twice by the web shop, and one got the money back last week.
INSERT INTO entries (order_number, kind, cents, payment_id) VALUES
    (40209, 'payment', 12900, 'web_40209_b'),
    (40150, 'refund',   6400, 're_web_40150');

UPDATE orders SET paid_cents = (
    SELECT coalesce(sum(CASE kind WHEN 'refund' THEN -cents ELSE cents END), 0)
    FROM entries WHERE order_number = orders.number
);
