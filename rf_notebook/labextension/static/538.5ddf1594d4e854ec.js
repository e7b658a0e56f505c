"use strict";(self.rspackChunkrf_notebook=self.rspackChunkrf_notebook||[]).push([[538],{9(e,r,t){t.d(r,{SavedPanelView:()=>k});var n=t(848),s=t(256),a=t(524),o=t(72),l=t.n(o),i=t(587),c=t.n(i),d=t(659),u=t.n(d),p=t(56),f=t.n(p),h=t(540),v=t.n(h),m=t(113),x=t.n(m),g=t(783),b={};b.styleTagTransform=x(),b.setAttributes=f(),b.insert=u().bind(null,"head"),b.domAPI=c(),b.insertStyleElement=v(),l()(g.A,b),g.A&&g.A.locals&&g.A.locals;var j=t(554),y=t(206),w=t(288);class k extends s.ReactWidget{panel;constructor(e){super(),this.panel=e,this.addClass("rf-static"),this.addClass("rfl-saved")}render(){return(0,n.jsx)(C,{panel:this.panel})}}function C({panel:e}){let[r,t]=a.useState(e.charts.length>0?e.charts:[0]),[s,o]=a.useState([]),[l,i]=a.useState([0,!1]),[c,d]=a.useState(null),[u,p]=l,f=e.runs.filter(e=>e.best).map(e=>e.id),h=(0,y.qD)(e,u,p),v=new Map(e.groups.map(e=>[e.means[0]?.run??-1,e.title]));return(0,n.jsxs)(n.Fragment,{children:[(0,n.jsxs)("p",{children:[(0,n.jsx)("b",{children:e.experiment})," ",e.summary]}),(0,n.jsx)("div",{className:"rfl-charts",children:r.map((s,a)=>{var o,l;let i=e.curves[s],c=e.groups.length>0?(o=e,l=s,o.groups.flatMap(e=>e.means[l]??[]).filter(e=>e.samples.length>0)):i?.runs??[];return void 0!==i&&c.length>0&&(0,n.jsxs)("div",{children:[e.curves.length>1&&(0,n.jsxs)("label",{children:["metric"," ",(0,n.jsx)("select",{value:s,onChange:e=>{let n=Number(e.target.value);t(r.map((e,r)=>r===a?n:e))},children:e.curves.map((e,r)=>(0,n.jsx)("option",{value:r,children:e.metric},r))})]}),(0,n.jsx)(A,{metric:i.metric,curves:c,onHover:d})]},a)})}),e.curves.length>0&&(0,n.jsx)(N,{hover:c,nameOf:r=>e.groups.length>0?v.get(r)??"":`run ${String(r)}`}),(0,n.jsx)("div",{className:"rfl-scroller",children:(0,n.jsxs)("table",{children:[(0,n.jsx)("thead",{children:(0,n.jsx)("tr",{children:e.columns.map((e,r)=>(0,n.jsx)("th",{scope:"col","aria-sort":r!==u?"none":p?"descending":"ascending",children:(0,n.jsxs)("button",{onClick:()=>{i([r,r===u&&!p])},children:[e,r===u?p?" ↓":" ↑":""]})},r))})}),(0,n.jsx)("tbody",{children:0===e.groups.length?h.map((e,r)=>(0,n.jsx)(S,{run:e,isBest:f.includes(e.id)},r)):e.groups.map((e,r)=>(0,n.jsxs)(a.Fragment,{children:[(0,n.jsx)("tr",{className:"rfl-group",children:e.cells.map((t,a)=>(0,n.jsxs)("td",{children:[a>0&&t,0===a&&(0,n.jsxs)("button",{"aria-expanded":!s.includes(r),onClick:()=>{o(s.includes(r)?s.filter(e=>e!==r):[...s,r])},children:[s.includes(r)?"▸ ":"▾ ",e.title]})]},a))}),!s.includes(r)&&h.filter(r=>e.runs.includes(r.id)).map((e,r)=>(0,n.jsx)(S,{run:e,isBest:f.includes(e.id)},r))]},r))})]})}),(0,n.jsx)("p",{className:"rfl-dim",children:"Figures as they were saved. Run the notebook's cells again to open the live panel and go on where the record ends."})]})}function S({run:e,isBest:r}){return(0,n.jsx)("tr",{"data-state":e.state,children:e.cells.map((t,s)=>(0,n.jsxs)("td",{children:[0===s&&(0,n.jsx)("span",{className:"rfl-dot",style:{background:(0,j.dU)(e.id)}}),t,0===s&&r?" ★":""]},s))})}function N({hover:e,nameOf:r}){return(0,n.jsxs)("p",{className:"rfl-hover",role:"status",children:[null!==e&&`sample ${(0,w.ai)(e.samples)}: `,e?.runs.map(({run:e,value:t})=>(0,n.jsxs)("span",{children:[(0,n.jsx)("span",{className:"rfl-dot",style:{background:(0,j.dU)(e)}}),`${r(e)} ${(0,w.ai)(t)}  `]},e))]})}function A({metric:e,curves:r,onHover:s}){let o=a.useRef(null);a.useEffect(()=>{let n=o.current;if(null===n)return;let a=!1,l=()=>void 0;return t.e(280).then(t.bind(t,395)).then(({drawCurves:t})=>{a||(l=t(n,e,r,s))}),()=>{a=!0,l()}},[e,r,s]);let l=`${e} of ${String(r.length)} runs over samples`;return(0,n.jsx)("div",{className:"rfl-chart",ref:o,role:"img","aria-label":l})}},783(e,r,t){var n=t(601),s=t.n(n),a=t(314),o=(t.n(a))()(s());o.push([e.id,`/* Saved panels; loaded when the first is seen. */

.rfl-saved {
  border: 1px solid var(--jp-border-color2);
  border-radius: 6px;
  color: var(--jp-ui-font-color1);
  font-family: var(--jp-ui-font-family);
  font-size: 13px;
  overflow: auto;
  padding: 8px 10px;
}

.rfl-saved p {
  margin: 2px 0 6px;
  overflow-wrap: anywhere;
}

.rfl-chart {
  min-height: 260px;
  width: 100%;
}

.rfl-hover {
  font-variant-numeric: tabular-nums;
  height: 1.5em;
  line-height: 1.5em;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: pre;
}

.rfl-scroller {
  max-height: 420px;
  overflow: auto;
}

.rfl-saved table {
  border-collapse: collapse;
  font-size: 13px;
}

.rfl-saved :is(th, td) {
  border-bottom: 1px solid var(--jp-border-color2);
  max-width: 260px;
  overflow: hidden;
  padding: 3px 9px;
  text-align: left;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.rfl-saved select {
  font: inherit;
  margin-bottom: 4px;
}

.rfl-saved :is(button, select):focus-visible {
  outline: 2px solid var(--jp-brand-color1);
  outline-offset: 1px;
}

.rfl-saved th button {
  background: none;
  border: 0;
  color: var(--jp-ui-font-color2);
  cursor: pointer;
  font: inherit;
  font-weight: 600;
  padding: 0;
}

.rfl-saved .rfl-charts {
  display: grid;
  gap: 4px 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr));
}

.rfl-saved .rfl-charts > div {
  min-width: 0;
}

.rfl-saved .rfl-group td {
  background: var(--jp-layout-color2);
  font-weight: 600;
}

.rfl-saved .rfl-group button {
  background: none;
  border: 0;
  color: inherit;
  cursor: pointer;
  font: inherit;
  padding: 0;
}

.rfl-unreadable {
  color: var(--jp-ui-font-color2);
  padding: 6px 10px;
}
`,""]),t.d(r,{},{A:o})},314(e){e.exports=function(e){var r=[];return r.toString=function(){return this.map(function(r){var t="",n=void 0!==r[5];return r[4]&&(t+="@supports (".concat(r[4],") {")),r[2]&&(t+="@media ".concat(r[2]," {")),n&&(t+="@layer".concat(r[5].length>0?" ".concat(r[5]):""," {")),t+=e(r),n&&(t+="}"),r[2]&&(t+="}"),r[4]&&(t+="}"),t}).join("")},r.i=function(e,t,n,s,a){"string"==typeof e&&(e=[[null,e,void 0]]);var o={};if(n)for(var l=0;l<this.length;l++){var i=this[l][0];null!=i&&(o[i]=!0)}for(var c=0;c<e.length;c++){var d=[].concat(e[c]);n&&o[d[0]]||(void 0!==a&&(void 0===d[5]||(d[1]="@layer".concat(d[5].length>0?" ".concat(d[5]):""," {").concat(d[1],"}")),d[5]=a),t&&(d[2]&&(d[1]="@media ".concat(d[2]," {").concat(d[1],"}")),d[2]=t),s&&(d[4]?(d[1]="@supports (".concat(d[4],") {").concat(d[1],"}"),d[4]=s):d[4]="".concat(s)),r.push(d))}},r}},601(e){e.exports=function(e){return e[1]}},72(e){var r=[];function t(e){for(var t=-1,n=0;n<r.length;n++)if(r[n].identifier===e){t=n;break}return t}function n(e,n){for(var s={},a=[],o=0;o<e.length;o++){var l=e[o],i=n.base?l[0]+n.base:l[0],c=s[i]||0,d="".concat(i," ").concat(c);s[i]=c+1;var u=t(d),p={css:l[1],media:l[2],sourceMap:l[3],supports:l[4],layer:l[5]};if(-1!==u)r[u].references++,r[u].updater(p);else{var f=function(e,r){var t=r.domAPI(r);return t.update(e),function(r){r?(r.css!==e.css||r.media!==e.media||r.sourceMap!==e.sourceMap||r.supports!==e.supports||r.layer!==e.layer)&&t.update(e=r):t.remove()}}(p,n);n.byIndex=o,r.splice(o,0,{identifier:d,updater:f,references:1})}a.push(d)}return a}e.exports=function(e,s){var a=n(e=e||[],s=s||{});return function(e){e=e||[];for(var o=0;o<a.length;o++){var l=t(a[o]);r[l].references--}for(var i=n(e,s),c=0;c<a.length;c++){var d=t(a[c]);0===r[d].references&&(r[d].updater(),r.splice(d,1))}a=i}}},659(e){var r={};e.exports=function(e,t){var n=function(e){if(void 0===r[e]){var t=document.querySelector(e);if(window.HTMLIFrameElement&&t instanceof window.HTMLIFrameElement)try{t=t.contentDocument.head}catch(e){t=null}r[e]=t}return r[e]}(e);if(!n)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");n.appendChild(t)}},540(e){e.exports=function(e){var r=document.createElement("style");return e.setAttributes(r,e.attributes),e.insert(r,e.options),r}},56(e,r,t){e.exports=function(e){var r=t.nc;r&&e.setAttribute("nonce",r)}},587(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var r=e.insertStyleElement(e);return{update:function(t){var n,s,a;n="",t.supports&&(n+="@supports (".concat(t.supports,") {")),t.media&&(n+="@media ".concat(t.media," {")),(s=void 0!==t.layer)&&(n+="@layer".concat(t.layer.length>0?" ".concat(t.layer):""," {")),n+=t.css,s&&(n+="}"),t.media&&(n+="}"),t.supports&&(n+="}"),(a=t.sourceMap)&&"u">typeof btoa&&(n+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(a))))," */")),e.styleTagTransform(n,r,e.options)},remove:function(){var e;null===(e=r).parentNode||e.parentNode.removeChild(e)}}}},113(e){e.exports=function(e,r){if(r.styleSheet)r.styleSheet.cssText=e;else{for(;r.firstChild;)r.removeChild(r.firstChild);r.appendChild(document.createTextNode(e))}}}}]);