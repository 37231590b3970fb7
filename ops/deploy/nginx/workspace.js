// Reads the workspace of a request from its token. The token is not verified: it only selects an edge, which verifies it.
// A client can choose its edge in this way, so nginx.conf limits the connections of an address (limit_conn).

function claims(r) {
    const header = r.headersIn['Authorization'] || '';
    const bearer = header.match(/^bearer +(\S+)$/i);
    const cookie = (r.headersIn['Cookie'] || '').match(/(?:^|; *)attn_session=([^;]+)/);
    const token = bearer ? bearer[1] : cookie ? cookie[1] : '';
    try {
        return JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString());
    } catch (e) {
        return {};
    }
}

// Requests without a readable token are distributed by address; the edge answers 401.
function workspace(r) {
    return String(claims(r).workspace_id || r.remoteAddress);
}

function reader(r) {
    const token = claims(r);
    return token.workspace_id ? token.workspace_id + '/' + token.sub : r.remoteAddress;
}

export default { reader, workspace };
