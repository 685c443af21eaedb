-- Tenants that move between installations (cells): how far each move is, and which records of the log it covers.

CREATE TABLE attribution_tenant_moves (
    tenant_id    text COLLATE "C" NOT NULL,
    move_id      text COLLATE "C" NOT NULL,
    state        text COLLATE "C" NOT NULL
        CONSTRAINT attribution_tenant_moves_state_known
        CHECK (state IN ('fenced', 'held', 'relaying', 'moved', 'arrived')),
    other_cell   text             NOT NULL,
    relay_from   jsonb            NOT NULL DEFAULT '{}',
    relayed_to   jsonb            NOT NULL DEFAULT '{}',
    row_counts   jsonb            NOT NULL DEFAULT '{}',
    created_at   timestamptz      NOT NULL DEFAULT now(),
    updated_at   timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id)
);
COMMENT ON TABLE attribution_tenant_moves IS 'Moves of tenants between installations: see attributary cell move-tenant. One row a tenant, of its last move.';
COMMENT ON COLUMN attribution_tenant_moves.tenant_id IS 'The tenant.';
COMMENT ON COLUMN attribution_tenant_moves.move_id IS 'The same in both installations.';
COMMENT ON COLUMN attribution_tenant_moves.state IS 'fenced: its records are left to the relay; held: its rows are set aside; relaying: the other installation has it, records that still come are relayed; moved: they are dead letters; arrived: it came here.';
COMMENT ON COLUMN attribution_tenant_moves.other_cell IS 'The prefix of the installation that it goes to or came from; empty: that one has none.';
COMMENT ON COLUMN attribution_tenant_moves.relay_from IS 'Topic to partition to the first offset of the log that the relay reads.';
COMMENT ON COLUMN attribution_tenant_moves.relayed_to IS 'Topic to partition to the next offset that it reads. Records of the tenant before it are the other installation''s.';
COMMENT ON COLUMN attribution_tenant_moves.row_counts IS 'Table to the number of rows that moved.';
COMMENT ON COLUMN attribution_tenant_moves.created_at IS 'When the move began.';
COMMENT ON COLUMN attribution_tenant_moves.updated_at IS 'When it last went on.';
