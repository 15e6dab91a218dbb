package xds

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	exprv1 "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/dspgate/dspgate/envoy/headers"
)

// Envoy's own look at the end of an admission. It only narrows: a call may still
// be held up behind it, and nothing here verifies a MAC. What closes the gap is
// the upstream (authz/admission).

// tellNow writes the present into a header, as the authorizer wrote the end of
// the admission into another: Unix milliseconds in 13 digits. The time has to be
// that of the filter, not of the stream's start.
func tellNow() *headermutationv3.HeaderMutation {
	return &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		RequestMutations: []*mutationv3.HeaderMutation{{Action: &mutationv3.HeaderMutation_Append{
			Append: headerOption(headers.Now, "%EMIT_TIME(%s%3f)%"),
		}}},
	}}
}

// freshOnly lets a request leave while its admission lasts:
// request.headers["x-dsp-now"] < request.headers["x-dsp-not-after"]. A header
// that is not there makes the condition an error, and so no. It stands on the
// routes for the reason that admittedOnly does.
func freshOnly() *rbacv3.RBACPerRoute {
	header := func(name string) *exprv1.Expr {
		request := &exprv1.Expr{ExprKind: &exprv1.Expr_IdentExpr{IdentExpr: &exprv1.Expr_Ident{Name: "request"}}}
		all := &exprv1.Expr{ExprKind: &exprv1.Expr_SelectExpr{SelectExpr: &exprv1.Expr_Select{Operand: request, Field: "headers"}}}
		key := &exprv1.Expr{ExprKind: &exprv1.Expr_ConstExpr{ConstExpr: &exprv1.Constant{ConstantKind: &exprv1.Constant_StringValue{StringValue: name}}}}
		return calling("_[_]", all, key)
	}
	return &rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{
		Action: rbacconfigv3.RBAC_ALLOW,
		Policies: map[string]*rbacconfigv3.Policy{"fresh": {
			Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
			Principals:  anybody(),
			Condition:   calling("_<_", header(headers.Now), header(headers.NotAfter)),
		}},
	}}}
}

func calling(function string, args ...*exprv1.Expr) *exprv1.Expr {
	return &exprv1.Expr{ExprKind: &exprv1.Expr_CallExpr{CallExpr: &exprv1.Expr_Call{Function: function, Args: args}}}
}
